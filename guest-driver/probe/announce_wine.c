// SPDX-License-Identifier: MIT
// Announcing under Wine: our PnP manager is told as pnpfeed.exe tells it. It keeps the interface until its removal
// is announced, also when the probe has ended.
#include "announce.h"

#include <stdio.h>
#include <string.h>
#include <winioctl.h>

#include "../winepnp/winepnp_ioctl.h"

static const char *Reason(DWORD error)
{
    switch (error)
    {
    case ERROR_ALREADY_EXISTS:
        return "there is such an interface already";
    case ERROR_FILE_NOT_FOUND:
        return "there is no such interface";
    default:
        return "winepnp refused";
    }
}

void AnnounceOnWine(const ANNOUNCEMENT *announcement, ANNOUNCED *announced)
{
    WINEPNP_NOTICE notice = {.ClassGuid = *InterfaceClassGuid(announcement->interfaceClass)};
    WINEPNP_CALLED called = {0};
    char link[ANNOUNCE_TEXT_BYTES];
    const int length = snprintf(
        link, sizeof link, "\\??\\SWD#%s#%s#%s", ANNOUNCE_ENUMERATOR, announcement->name,
        InterfaceClassText(announcement->interfaceClass));
    for (int index = 0; index < length; index++)
    {
        notice.Link[index] = (WCHAR)link[index];
    }
    notice.LinkCharacters = (ULONG)length;

    HANDLE device = CreateFileA(
        "\\\\.\\winepnp", GENERIC_READ | GENERIC_WRITE, FILE_SHARE_READ | FILE_SHARE_WRITE, NULL, OPEN_EXISTING, 0,
        NULL);
    if (device == INVALID_HANDLE_VALUE)
    {
        SayAnnounceError(announced, "winepnp is not running", GetLastError());
        return;
    }
    DWORD returned = 0;
    // Returns when every driver's callback has.
    if (DeviceIoControl(
            device, announcement->arrival ? WINEPNP_IOCTL_ARRIVE : WINEPNP_IOCTL_REMOVE, &notice, sizeof notice,
            &called, sizeof called, &returned, NULL))
    {
        (void)memcpy(announced->link, link, (size_t)length + 1);
    }
    else
    {
        const DWORD error = GetLastError();
        SayAnnounceError(announced, Reason(error), error);
    }
    (void)CloseHandle(device);
}

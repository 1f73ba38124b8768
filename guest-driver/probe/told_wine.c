// SPDX-License-Identifier: MIT
// Under Wine our PnP manager keeps what it told drivers, and is asked for it.
#include "told.h"

#include <string.h>
#include <winioctl.h>

#include "../winepnp/winepnp_ioctl.h"

// What <wdmguid.h> has for drivers.
static const GUID ARRIVAL = {0xcb3a4004, 0x46f0, 0x11d0, {0xb0, 0x8f, 0x00, 0x60, 0x97, 0x13, 0x05, 0x3f}};

static HANDLE g_winepnp = INVALID_HANDLE_VALUE;
static ULONG64 g_before; // number of the last that was told before this program ran
static ULONG64 g_taken;

static bool Ask(ULONG64 after, WINEPNP_TOLD *told)
{
    DWORD returned = 0;
    return DeviceIoControl(g_winepnp, WINEPNP_IOCTL_TOLD, &after, sizeof after, told, sizeof *told, &returned, NULL) &&
           returned == sizeof *told;
}

bool ListenOnWine(void)
{
    WINEPNP_TOLD told;
    g_winepnp = CreateFileA(
        "\\\\.\\winepnp", GENERIC_READ | GENERIC_WRITE, FILE_SHARE_READ | FILE_SHARE_WRITE, NULL, OPEN_EXISTING, 0,
        NULL);
    if (g_winepnp == INVALID_HANDLE_VALUE || !Ask(0, &told))
    {
        return false;
    }
    g_before = told.Last;
    g_taken = told.Last;
    return true;
}

static bool ClassOf(const GUID *guid, INTERFACE_CLASS *interfaceClass)
{
    for (int index = 0; index < CLASS_COUNT; index++)
    {
        *interfaceClass = (INTERFACE_CLASS)index;
        if (IsEqualGUID(InterfaceClassGuid(*interfaceClass), guid))
        {
            return true;
        }
    }
    return false;
}

bool TakeToldOnWine(TOLD *told)
{
    WINEPNP_TOLD kept;
    while (Ask(g_taken, &kept) && kept.Number != 0)
    {
        g_taken = kept.Number;
        if (!ClassOf(&kept.Notice.ClassGuid, &told->interfaceClass))
        {
            g_before += 1; // of no concern, and so no gap
            continue;
        }
        told->number = kept.Number - g_before;
        told->arrival = IsEqualGUID(&kept.Notice.EventGuid, &ARRIVAL);
        told->qpc = kept.Qpc;
        const int length = WideCharToMultiByte(
            CP_UTF8, 0, kept.Notice.Link, (int)kept.Notice.LinkCharacters, told->link, sizeof told->link - 1, NULL,
            NULL);
        told->link[length] = '\0';
        return true;
    }
    return false;
}

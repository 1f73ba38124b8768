// SPDX-License-Identifier: MIT
// Windows writes its registry and its files some time later (MS documentation, RegFlushKey and FlushFileBuffers).
#include <stdio.h>
#include <windows.h>

#include "save.h"

static bool SaveSystemHive(void)
{
    HKEY key = NULL;
    LSTATUS status = RegOpenKeyExW(HKEY_LOCAL_MACHINE, L"SYSTEM", 0, KEY_QUERY_VALUE, &key);
    if (status == ERROR_SUCCESS)
    {
        status = RegFlushKey(key);
        (void)RegCloseKey(key);
    }
    if (status != ERROR_SUCCESS)
    {
        fprintf(stderr, "hpprobe: the registry is not saved: error %ld\n", status);
    }
    return status == ERROR_SUCCESS;
}

static bool SaveSystemVolume(void)
{
    wchar_t directory[MAX_PATH];
    wchar_t volume[] = L"\\\\.\\C:";
    if (GetSystemDirectoryW(directory, MAX_PATH) > 0)
    {
        volume[4] = directory[0];
    }
    HANDLE file = CreateFileW(
        volume, GENERIC_READ | GENERIC_WRITE, FILE_SHARE_READ | FILE_SHARE_WRITE, NULL, OPEN_EXISTING, 0, NULL);
    const bool saved = file != INVALID_HANDLE_VALUE && FlushFileBuffers(file);
    if (!saved)
    {
        fprintf(stderr, "hpprobe: the files are not saved: error %lu\n", GetLastError());
    }
    if (file != INVALID_HANDLE_VALUE)
    {
        CloseHandle(file);
    }
    return saved;
}

bool SaveWindows(void)
{
    return SaveSystemHive() && SaveSystemVolume();
}

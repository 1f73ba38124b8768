// SPDX-License-Identifier: MIT
// Wine's server writes the registry every 30 s and when it ends; its RegFlushKey does nothing. But what RegSaveKey
// writes of the machine's whole registry is just the file that the server reads at its next start.
#include <stdio.h>
#include <windows.h>

#include "save.h"

// RegSaveKey asks for a privilege that is there, but off.
static bool EnableBackup(void)
{
    HANDLE token = NULL;
    TOKEN_PRIVILEGES privileges = {.PrivilegeCount = 1, .Privileges = {{.Attributes = SE_PRIVILEGE_ENABLED}}};
    if (!OpenProcessToken(GetCurrentProcess(), TOKEN_ADJUST_PRIVILEGES | TOKEN_QUERY, &token))
    {
        return false;
    }
    const bool enabled = LookupPrivilegeValueA(NULL, SE_BACKUP_NAME, &privileges.Privileges[0].Luid) &&
                         AdjustTokenPrivileges(token, FALSE, &privileges, 0, NULL, NULL);
    CloseHandle(token);
    return enabled;
}

bool SaveWine(void)
{
    static const char ntPrefix[] = "\\??\\";
    char folder[MAX_PATH] = "";
    char written[MAX_PATH + 16];
    char kept[MAX_PATH + 16];
    // Wine sets it, as a path of the NT kernel.
    const DWORD length = GetEnvironmentVariableA("WINECONFIGDIR", folder, sizeof folder);
    if (length < sizeof ntPrefix || length >= sizeof folder)
    {
        fprintf(stderr, "hpprobe: Wine does not say where its registry lies\n");
        return false;
    }
    // The same as a path of Win32: \\?\ in place of \??\.
    folder[1] = '\\';
    (void)snprintf(written, sizeof written, "%s\\system.reg.new", folder);
    (void)snprintf(kept, sizeof kept, "%s\\system.reg", folder);
    (void)DeleteFileA(written); // RegSaveKey overwrites nothing; there is one if an earlier run was ended
    LSTATUS status = EnableBackup() ? RegSaveKeyA(HKEY_LOCAL_MACHINE, written, NULL) : (LSTATUS)GetLastError();
    if (status == ERROR_SUCCESS && !MoveFileExA(written, kept, MOVEFILE_REPLACE_EXISTING))
    {
        status = (LSTATUS)GetLastError();
    }
    if (status != ERROR_SUCCESS)
    {
        fprintf(stderr, "hpprobe: the registry is not saved in %s: error %ld\n", kept, status);
    }
    return status == ERROR_SUCCESS;
}

// SPDX-License-Identifier: MIT
// The state of a Windows system.
#include <stdio.h>
#include <windows.h>
#include <winternl.h>

#include "routine.h"
#include "state.h"

// SystemTimeOfDayInformation as NtQuerySystemInformation hands it out; <winternl.h> has it as reserved bytes.
typedef struct TIME_OF_DAY
{
    LARGE_INTEGER bootTime;
    LARGE_INTEGER currentTime;
    LARGE_INTEGER timeZoneBias;
    ULONG timeZoneId;
    ULONG reserved;
    ULONGLONG bootTimeBias; // what setting the clock has added to bootTime since the boot
    ULONGLONG sleepTimeBias;
} TIME_OF_DAY;

typedef NTSTATUS(NTAPI *NT_QUERY_SYSTEM_INFORMATION)(SYSTEM_INFORMATION_CLASS, PVOID, ULONG, PULONG);

static bool QueryTimeOfDay(TIME_OF_DAY *timeOfDay)
{
    NT_QUERY_SYSTEM_INFORMATION query =
        (NT_QUERY_SYSTEM_INFORMATION)FindRoutine(L"ntdll.dll", "NtQuerySystemInformation");
    ULONG length = 0;
    *timeOfDay = (TIME_OF_DAY){0};
    return query != NULL && query(SystemTimeOfDayInformation, timeOfDay, sizeof *timeOfDay, &length) >= 0;
}

// The number of boots that the prefetcher keeps; 0 where it is off.
static DWORD QueryBootNumber(void)
{
    DWORD number = 0;
    DWORD size = sizeof number;
    LSTATUS status = RegGetValueW(
        HKEY_LOCAL_MACHINE,
        L"SYSTEM\\CurrentControlSet\\Control\\Session Manager\\Memory Management\\PrefetchParameters", L"BootId",
        RRF_RT_REG_DWORD, NULL, &number, &size);
    return status == ERROR_SUCCESS ? number : 0;
}

bool QueryWindowsState(SYSTEM_STATE *state)
{
    MEMORYSTATUSEX memory = {.dwLength = sizeof memory};
    TIME_OF_DAY timeOfDay;
    state->activeProcessors = GetActiveProcessorCount(ALL_PROCESSOR_GROUPS);
    if (state->activeProcessors == 0)
    {
        fprintf(stderr, "hpprobe: GetActiveProcessorCount failed: error %lu\n", GetLastError());
        return false;
    }
    if (!GlobalMemoryStatusEx(&memory))
    {
        fprintf(stderr, "hpprobe: GlobalMemoryStatusEx failed: error %lu\n", GetLastError());
        return false;
    }
    if (!QueryTimeOfDay(&timeOfDay))
    {
        fprintf(stderr, "hpprobe: NtQuerySystemInformation(SystemTimeOfDayInformation) failed\n");
        return false;
    }
    state->memoryBytes = memory.ullTotalPhys;
    state->bootTime100ns = (uint64_t)timeOfDay.bootTime.QuadPart;
    // Neither is enough alone: the number stands still where the prefetcher is off, and a boot time can come again
    // after a snapshot. Less the bias, the time stays as it is when somebody sets the clock.
    snprintf(
        state->bootId, sizeof state->bootId, "%lu-%llx", QueryBootNumber(),
        (unsigned long long)timeOfDay.bootTime.QuadPart - timeOfDay.bootTimeBias);
    return true;
}

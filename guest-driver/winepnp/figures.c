// SPDX-License-Identifier: MIT
// How many processors and how much memory the system has, as it was last told. Wine's own processor count is that of
// the moment its process started.
#include "winepnp.h"

static volatile LONG g_activeProcessors;
static volatile LONG g_maximumProcessors;
static volatile LONG64 g_memoryBytes;
static volatile LONG g_memoryAskedCount; // in a processor callback

static const ULONG WP_GROUP_SIZE = 64;

// PASSIVE_LEVEL, DriverEntry. Memory stays unknown until told.
VOID WpInitializeFigures(VOID)
{
    g_activeProcessors = (LONG)KeQueryActiveProcessorCountEx(ALL_PROCESSOR_GROUPS);
    g_maximumProcessors = g_activeProcessors;
}

// Any IRQL, any thread.
VOID WpSetFigures(const WINEPNP_SYSTEM *figures)
{
    (void)InterlockedExchange(&g_activeProcessors, (LONG)figures->ActiveProcessors);
    (void)InterlockedExchange(&g_maximumProcessors, (LONG)figures->MaximumProcessors);
    (void)InterlockedExchange64(&g_memoryBytes, (LONG64)figures->MemoryBytes);
}

// Any IRQL, any thread.
ULONG WpActiveProcessors(VOID)
{
    return (ULONG)g_activeProcessors;
}

// Any IRQL, any thread. Groups are filled one after the other.
static ULONG WpOfGroup(ULONG processors, USHORT group)
{
    const ULONG before = group * WP_GROUP_SIZE;
    if (group == ALL_PROCESSOR_GROUPS)
    {
        return processors;
    }
    if (processors <= before)
    {
        return 0;
    }
    return min(processors - before, WP_GROUP_SIZE);
}

// Any IRQL, any thread.
ULONG NTAPI WpKeQueryActiveProcessorCountEx(USHORT group)
{
    return WpOfGroup((ULONG)g_activeProcessors, group);
}

// Any IRQL, any thread.
ULONG NTAPI WpKeQueryMaximumProcessorCountEx(USHORT group)
{
    return WpOfGroup((ULONG)g_maximumProcessors, group);
}

// Any IRQL, any thread.
KAFFINITY NTAPI WpKeQueryActiveProcessors(VOID)
{
    const ULONG count = WpKeQueryActiveProcessorCountEx(0);
    return count == WP_GROUP_SIZE ? ~(KAFFINITY)0 : ((KAFFINITY)1 << count) - 1;
}

// Any IRQL, any thread. The forms without Ex know group 0 only.
ULONG NTAPI WpKeQueryActiveProcessorCount(PKAFFINITY activeProcessors)
{
    if (activeProcessors != NULL)
    {
        *activeProcessors = WpKeQueryActiveProcessors();
    }
    return WpKeQueryActiveProcessorCountEx(0);
}

// Any IRQL, any thread.
ULONG NTAPI WpKeQueryMaximumProcessorCount(VOID)
{
    return WpKeQueryMaximumProcessorCountEx(0);
}

// Any IRQL, any thread.
USHORT NTAPI WpKeQueryActiveGroupCount(VOID)
{
    return (USHORT)(((ULONG)g_activeProcessors + WP_GROUP_SIZE - 1) / WP_GROUP_SIZE);
}

// Any IRQL, any thread.
USHORT NTAPI WpKeQueryMaximumGroupCount(VOID)
{
    return (USHORT)(((ULONG)g_maximumProcessors + WP_GROUP_SIZE - 1) / WP_GROUP_SIZE);
}

// PASSIVE_LEVEL, any thread. One range, ended by an empty one; the caller frees it with ExFreePool.
PPHYSICAL_MEMORY_RANGE NTAPI WpMmGetPhysicalMemoryRanges(VOID)
{
    static const LONGLONG firstAddress = PAGE_SIZE; // as on a PC, where page 0 is the firmware's
    const LONG64 memoryBytes = g_memoryBytes;
    if (WpIsInProcessorCallback())
    {
        (void)InterlockedIncrement(&g_memoryAskedCount);
    }
    if (memoryBytes == 0)
    {
        return NULL;
    }
    PPHYSICAL_MEMORY_RANGE ranges = ExAllocatePoolWithTag(NonPagedPool, 2 * sizeof *ranges, WINEPNP_POOL_TAG);
    if (ranges != NULL)
    {
        RtlZeroMemory(ranges, 2 * sizeof *ranges);
        ranges[0].BaseAddress.QuadPart = firstAddress;
        ranges[0].NumberOfBytes.QuadPart = memoryBytes;
    }
    return ranges;
}

// Any IRQL, any thread.
ULONG WpCountMemoryAsked(VOID)
{
    return (ULONG)g_memoryAskedCount;
}

// PASSIVE_LEVEL, any thread. The same: there is one partition, and no memory that is only a file's.
PPHYSICAL_MEMORY_RANGE NTAPI WpMmGetPhysicalMemoryRangesEx2(PVOID partition, ULONG flags)
{
    UNREFERENCED_PARAMETER(partition);
    UNREFERENCED_PARAMETER(flags);
    return WpMmGetPhysicalMemoryRanges();
}

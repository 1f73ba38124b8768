// SPDX-License-Identifier: MIT
// What the system says of its processors and its memory.
#include "pnptest.h"

// PASSIVE_LEVEL, any thread.
VOID PtLogFigures(VOID)
{
    KAFFINITY affinity = 0;
    const ULONG count = KeQueryActiveProcessorCount(&affinity);
    PtLog(
        "active all=%lu group0=%lu group1=%lu groups=%u plain=%lu affinity=%I64x mask=%I64x",
        KeQueryActiveProcessorCountEx(ALL_PROCESSOR_GROUPS), KeQueryActiveProcessorCountEx(0),
        KeQueryActiveProcessorCountEx(1), KeQueryActiveGroupCount(), count, affinity, KeQueryActiveProcessors());
    PtLog(
        "maximum all=%lu group0=%lu groups=%u plain=%lu", KeQueryMaximumProcessorCountEx(ALL_PROCESSOR_GROUPS),
        KeQueryMaximumProcessorCountEx(0), KeQueryMaximumGroupCount(), KeQueryMaximumProcessorCount());

    PPHYSICAL_MEMORY_RANGE ranges = MmGetPhysicalMemoryRanges();
    LONGLONG bytes = 0;
    for (PPHYSICAL_MEMORY_RANGE range = ranges; range != NULL && range->NumberOfBytes.QuadPart != 0; range++)
    {
        bytes += range->NumberOfBytes.QuadPart;
    }
    PtLog("memory %s bytes=%I64d", ranges == NULL ? "unknown" : "known", bytes);
    if (ranges != NULL)
    {
        ExFreePool(ranges);
    }
}

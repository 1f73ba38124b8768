// SPDX-License-Identifier: MIT
// The state of the machine: what a record says beside its event.
#include "hpnotify.h"

// PASSIVE_LEVEL, any thread, no lock held.
_Use_decl_annotations_ NTSTATUS HpnTakeSnapshot(HPN_FACTS *facts)
{
    facts->activeProcessors = KeQueryActiveProcessorCountEx(ALL_PROCESSOR_GROUPS);
    facts->memoryBytes = 0;
    PPHYSICAL_MEMORY_RANGE ranges = MmGetPhysicalMemoryRanges();
    if (ranges == NULL)
    {
        return STATUS_INSUFFICIENT_RESOURCES;
    }
    for (const PHYSICAL_MEMORY_RANGE *range = ranges; range->NumberOfBytes.QuadPart != 0; range++)
    {
        facts->memoryBytes += (ULONG64)range->NumberOfBytes.QuadPart;
    }
    ExFreePool(ranges);
    return STATUS_SUCCESS;
}

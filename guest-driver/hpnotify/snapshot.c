// SPDX-License-Identifier: MIT
// The state of the machine: what a record says beside its event.
#include "hpnotify.h"

// Windows 10 2004 and Server 2022 have it, older ones and Wine have not. MmGetPhysicalMemoryRanges is documented as
// reserved for system use: https://learn.microsoft.com/windows-hardware/drivers/ddi/ntddk/
typedef PPHYSICAL_MEMORY_RANGE(NTAPI *HPN_MEMORY_RANGES_EX2)(PVOID PartitionObject, ULONG Flags);

static HPN_MEMORY_RANGES_EX2 memoryRangesEx2;

// PASSIVE_LEVEL, DriverEntry's thread.
_Use_decl_annotations_ void HpnFindMemoryRoutine(void)
{
    UNICODE_STRING name = RTL_CONSTANT_STRING(L"MmGetPhysicalMemoryRangesEx2");
    memoryRangesEx2 = (HPN_MEMORY_RANGES_EX2)(ULONG_PTR)MmGetSystemRoutineAddress(&name);
}

// Any IRQL.
_Use_decl_annotations_ const char *HpnMemorySource(void)
{
    return memoryRangesEx2 != NULL ? "MmGetPhysicalMemoryRangesEx2" : "MmGetPhysicalMemoryRanges";
}

// Up to DISPATCH_LEVEL, any thread; waits for nothing.
_Use_decl_annotations_ void HpnTakeSnapshot(HPN_RECORD *record)
{
    record->facts.activeProcessors = KeQueryActiveProcessorCountEx(ALL_PROCESSOR_GROUPS);
    record->context.irql = KeGetCurrentIrql();
    record->context.thread = (ULONG64)(ULONG_PTR)PsGetCurrentThreadId();
    record->context.apcsDisabled = KeAreAllApcsDisabled() ? 2 : KeAreApcsDisabled() ? 1 : 0;
    record->context.cpu = KeGetCurrentProcessorNumberEx(NULL);
}

// PASSIVE_LEVEL, any thread, no lock held; not in a processor callback, where it may wait for what waits for us.
_Use_decl_annotations_ NTSTATUS HpnTakeMemory(HPN_FACTS *facts)
{
    facts->memoryBytes = 0;
    PPHYSICAL_MEMORY_RANGE ranges = memoryRangesEx2 != NULL ? memoryRangesEx2(NULL, 0) : MmGetPhysicalMemoryRanges();
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

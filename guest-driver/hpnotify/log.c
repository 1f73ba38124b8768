// SPDX-License-Identifier: MIT
// The log: a fixed ring that callbacks append to, and one system thread that writes it to the file.
#include "hpnotify.h"

static KSTART_ROUTINE HpnWriterThread;

// PASSIVE_LEVEL, DriverEntry's thread. The directory must exist.
_Use_decl_annotations_ NTSTATUS HpnLogOpen(HPN_LOG *log, PUNICODE_STRING path)
{
    // Not left to the loader: Wine keeps the image, written variables and all, of a driver whose DriverEntry failed.
    log->stopping = FALSE;
    log->oldest = 0;
    log->waiting = 0;
    log->nextSequence = 0;
    log->lost = 0;
    UNICODE_STRING clock = RTL_CONSTANT_STRING(L"KeQuerySystemTimePrecise");
    log->querySystemTimePrecise = (HPN_QUERY_SYSTEM_TIME)(ULONG_PTR)MmGetSystemRoutineAddress(&clock);
    KeInitializeEvent(&log->wake, SynchronizationEvent, FALSE);
    KeInitializeSpinLock(&log->lock);

    // No FILE_WRITE_DATA: every write then goes to the end of the file. All is shared so that any reader can follow.
    OBJECT_ATTRIBUTES attributes;
    IO_STATUS_BLOCK result;
    InitializeObjectAttributes(&attributes, path, OBJ_KERNEL_HANDLE | OBJ_CASE_INSENSITIVE, NULL, NULL);
    return ZwCreateFile(
        &log->file, FILE_APPEND_DATA | SYNCHRONIZE, &attributes, &result, NULL, FILE_ATTRIBUTE_NORMAL,
        FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE, FILE_OPEN_IF,
        FILE_SYNCHRONOUS_IO_NONALERT | FILE_NON_DIRECTORY_FILE | FILE_WRITE_THROUGH, NULL, 0);
}

// PASSIVE_LEVEL, system process, no writer thread.
_Use_decl_annotations_ void HpnLogClose(HPN_LOG *log)
{
    (void)ZwClose(log->file); // fails only for a handle that is not ours
}

// PASSIVE_LEVEL, DriverEntry's thread.
_Use_decl_annotations_ NTSTATUS HpnLogStartWriter(HPN_LOG *log)
{
    OBJECT_ATTRIBUTES attributes;
    InitializeObjectAttributes(&attributes, NULL, OBJ_KERNEL_HANDLE, NULL, NULL);
    return PsCreateSystemThread(&log->writer, THREAD_ALL_ACCESS, &attributes, NULL, NULL, HpnWriterThread, log);
}

// PASSIVE_LEVEL; nothing may append any more. What waits in the ring is written before the thread ends.
_Use_decl_annotations_ void HpnLogStopWriter(HPN_LOG *log)
{
    KIRQL irql;
    KeAcquireSpinLock(&log->lock, &irql);
    log->stopping = TRUE;
    KeReleaseSpinLock(&log->lock, irql);
    (void)KeSetEvent(&log->wake, IO_NO_INCREMENT, FALSE); // returns the previous state

    // Waiting by handle rather than by object leaves no reference to take, so nothing here can fail.
    (void)ZwWaitForSingleObject(log->writer, FALSE, NULL);
    (void)ZwClose(log->writer);
}

// Lock held, or no other thread. The lock keeps sequence and both clocks in one order.
static void HpnStamp(HPN_LOG *log, HPN_FACTS *facts)
{
    LARGE_INTEGER now;
    facts->sequence = log->nextSequence++;
    facts->lost = log->lost;
    facts->qpc = (ULONG64)KeQueryPerformanceCounter(NULL).QuadPart;
    if (log->querySystemTimePrecise != NULL)
    {
        log->querySystemTimePrecise(&now);
    }
    else
    {
        KeQuerySystemTime(&now);
    }
    facts->time100ns = (ULONG64)now.QuadPart;
}

// PASSIVE_LEVEL, one thread at a time, no lock held. One write per line: a reader sees at most one torn line, the last.
static NTSTATUS HpnWriteLine(HPN_LOG *log, const HPN_RECORD *record)
{
    IO_STATUS_BLOCK result = {0};
    HpnFormatRecord(&log->line, record);
    NTSTATUS status =
        ZwWriteFile(log->file, NULL, NULL, NULL, &result, log->line.text, (ULONG)log->line.length, NULL, NULL);
    if (NT_SUCCESS(status) && result.Information != log->line.length)
    {
        status = STATUS_DISK_FULL;
    }
    return status;
}

// PASSIVE_LEVEL, DriverEntry's or the unload's thread, while no writer thread runs.
_Use_decl_annotations_ NTSTATUS HpnLogWrite(HPN_LOG *log, HPN_RECORD *record)
{
    HpnStamp(log, &record->facts);
    return HpnWriteLine(log, record);
}

// PASSIVE_LEVEL, arbitrary thread, no lock held. A full ring loses the record but not its sequence number.
_Use_decl_annotations_ void HpnLogAppend(HPN_LOG *log, HPN_RECORD *record)
{
    KIRQL irql;
    KeAcquireSpinLock(&log->lock, &irql);
    HpnStamp(log, &record->facts);
    if (log->waiting < HPN_RING_RECORDS)
    {
        log->ring[(log->oldest + log->waiting) % HPN_RING_RECORDS] = *record;
        log->waiting++;
    }
    else
    {
        log->lost++;
    }
    KeReleaseSpinLock(&log->lock, irql);
    (void)KeSetEvent(&log->wake, IO_NO_INCREMENT, FALSE); // returns the previous state
}

// PASSIVE_LEVEL, writer thread, no lock held.
static BOOLEAN HpnTakeOldest(HPN_LOG *log)
{
    KIRQL irql;
    KeAcquireSpinLock(&log->lock, &irql);
    const BOOLEAN any = log->waiting > 0;
    if (any)
    {
        log->taken = log->ring[log->oldest];
        log->oldest = (log->oldest + 1) % HPN_RING_RECORDS;
        log->waiting--;
    }
    KeReleaseSpinLock(&log->lock, irql);
    return any;
}

// PASSIVE_LEVEL, system thread of our own, joined by HpnLogStopWriter.
_Use_decl_annotations_ static VOID NTAPI HpnWriterThread(PVOID StartContext)
{
    HPN_LOG *log = (HPN_LOG *)StartContext;
    KIRQL irql;
    BOOLEAN last = FALSE;
    while (!last)
    {
        (void)KeWaitForSingleObject(&log->wake, Executive, KernelMode, FALSE, NULL); // no timeout, no alert
        KeAcquireSpinLock(&log->lock, &irql);
        last = log->stopping; // read before the ring is emptied: nothing is appended once it is set
        KeReleaseSpinLock(&log->lock, irql);
        while (HpnTakeOldest(log))
        {
            if (log->taken.kind == HpnKindProcessorChange)
            {
                (void)HpnTakeMemory(&log->taken.facts); // a failure shows in the record as memory_bytes=0
            }
            if (!NT_SUCCESS(HpnWriteLine(log, &log->taken)))
            {
                KeAcquireSpinLock(&log->lock, &irql);
                log->lost++; // the file is full or gone; the next line that can be written says so
                KeReleaseSpinLock(&log->lock, irql);
            }
        }
    }
    (void)PsTerminateSystemThread(STATUS_SUCCESS); // does not return
}

// SPDX-License-Identifier: MIT
// A small driver that tells the driver log (docs/driver-log.md) of every processor and memory module that arrives.
// It shows what a driver of your own needs: log_format.h, two registrations, and a thread that writes the file.
#define INITGUID
#include <ntifs.h> // is <ntddk.h> and ZwWaitForSingleObject
#include <wdmguid.h>
#include <poclass.h>

#include "log_format.h"

#define LINES 512 // that may wait to be written; twice a burst of 256 DIMMs

DRIVER_INITIALIZE DriverEntry;

static struct
{
    HANDLE file;
    HANDLE writer;
    KEVENT wake;
    KSPIN_LOCK lock;  // guards the fields from here to lines
    ULONG oldest;     // index into lines
    ULONG waiting;    // lines to be written
    ULONG64 sequence; // of the next record
    ULONG64 lost;     // records so far
    HPN_LINE lines[LINES];
    PVOID registrations[2];
    BOOLEAN stopping; // the writer is to end once all is written
} state;

// PASSIVE_LEVEL. 0 if it cannot be read.
static ULONG64 MemoryBytes(void)
{
    ULONG64 bytes = 0;
    PPHYSICAL_MEMORY_RANGE ranges = MmGetPhysicalMemoryRanges();
    if (ranges != NULL)
    {
        for (PPHYSICAL_MEMORY_RANGE range = ranges; range->NumberOfBytes.QuadPart != 0; range++)
        {
            bytes += (ULONG64)range->NumberOfBytes.QuadPart;
        }
        ExFreePool(ranges);
    }
    return bytes;
}

// PASSIVE_LEVEL, any thread. Makes a record with the keys of its kind after the common ones, for the writer to write.
static void Record(const char *kind, const DEVICE_INTERFACE_CHANGE_NOTIFICATION *notification)
{
    HPN_FACTS facts = {
        .memoryBytes = MemoryBytes(), .activeProcessors = KeQueryActiveProcessorCountEx(ALL_PROCESSOR_GROUPS)};
    LARGE_INTEGER frequency, now;
    KIRQL irql;

    // Under the lock, so that sequence and clock rise together. Nothing here waits.
    KeAcquireSpinLock(&state.lock, &irql);
    facts.sequence = state.sequence++;
    facts.lost = state.lost;
    facts.qpc = (ULONG64)KeQueryPerformanceCounter(&frequency).QuadPart;
    KeQuerySystemTime(&now);
    facts.time100ns = (ULONG64)now.QuadPart;
    if (state.waiting == LINES)
    {
        state.lost++;
    }
    else
    {
        HPN_LINE *line = &state.lines[(state.oldest + state.waiting++) % LINES];
        HpnBeginLine(line, kind, &facts);
        if (facts.sequence == 0)
        {
            HpnAppendNumber(line, "format", HPN_LOG_FORMAT);
            HpnAppendWord(line, "driver", "tinynotify/1");
            HpnAppendNumber(line, "qpc_hz", (ULONG64)frequency.QuadPart);
            HpnAppendWord(line, "interfaces", "both");
            HpnAppendNumber(line, "synchronous", 0);
        }
        if (notification != NULL)
        {
            const UNICODE_STRING *name = notification->SymbolicLinkName;
            const BOOLEAN isProcessor = IsEqualGUID(&notification->InterfaceClassGuid, &GUID_DEVICE_PROCESSOR);
            const BOOLEAN isArrival = IsEqualGUID(&notification->Event, &GUID_DEVICE_INTERFACE_ARRIVAL);
            char link[HPN_LINK_CHARS + 1];
            HpnCopyLink(link, name->Buffer, name->Length / sizeof *name->Buffer);
            HpnAppendWord(line, "class", isProcessor ? "processor" : "memory");
            HpnAppendWord(line, "event", isArrival ? "arrival" : "removal");
            HpnAppendWord(line, "link", link);
        }
        HpnEndLine(line);
    }
    KeReleaseSpinLock(&state.lock, irql);
    (void)KeSetEvent(&state.wake, IO_NO_INCREMENT, FALSE);
}

// PASSIVE_LEVEL, one thread at a time. Writes what waits, one append a line; returns whether the writer is to end.
static BOOLEAN WriteWaiting(void)
{
    KIRQL irql;
    KeAcquireSpinLock(&state.lock, &irql);
    const BOOLEAN last = state.stopping; // nothing is recorded once it is set
    while (state.waiting > 0)
    {
        HPN_LINE *line = &state.lines[state.oldest]; // nobody writes to it as long as it counts as waiting
        IO_STATUS_BLOCK result;
        KeReleaseSpinLock(&state.lock, irql);
        const NTSTATUS status =
            ZwWriteFile(state.file, NULL, NULL, NULL, &result, line->text, (ULONG)line->length, NULL, NULL);
        KeAcquireSpinLock(&state.lock, &irql);
        state.lost += NT_SUCCESS(status) ? 0 : 1;
        state.oldest = (state.oldest + 1) % LINES;
        state.waiting--;
    }
    KeReleaseSpinLock(&state.lock, irql);
    return last;
}

// PASSIVE_LEVEL, a thread of our own.
static VOID NTAPI Writer(PVOID context)
{
    UNREFERENCED_PARAMETER(context);
    do
    {
        (void)KeWaitForSingleObject(&state.wake, Executive, KernelMode, FALSE, NULL);
    } while (!WriteWaiting());
    (void)PsTerminateSystemThread(STATUS_SUCCESS);
}

// PASSIVE_LEVEL, arbitrary thread; must not block.
static NTSTATUS NTAPI Notification(PVOID notification, PVOID context)
{
    UNREFERENCED_PARAMETER(context);
    Record("notification", notification);
#ifdef TWICE // wrong on purpose: the project's tests see to it that this is noticed
    Record("notification", notification);
#endif
    return STATUS_SUCCESS;
}

// PASSIVE_LEVEL. Undoes in reverse what DriverEntry has done, as far as it came.
static VOID NTAPI Unload(PDRIVER_OBJECT driver)
{
    UNREFERENCED_PARAMETER(driver);
    for (int index = 1; index >= 0; index--)
    {
        if (state.registrations[index] != NULL)
        {
            (void)IoUnregisterPlugPlayNotificationEx(state.registrations[index]);
        }
    }
    if (state.writer != NULL)
    {
        state.stopping = TRUE; // nothing records any more, and the writer looks only once it is woken
        (void)KeSetEvent(&state.wake, IO_NO_INCREMENT, FALSE);
        (void)ZwWaitForSingleObject(state.writer, FALSE, NULL);
        (void)ZwClose(state.writer);
    }
    Record("unload", NULL);
    (void)WriteWaiting();
    (void)ZwClose(state.file);
}

// PASSIVE_LEVEL. Load and baseline are in the file before anything is registered.
NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING registryPath)
{
    static const GUID *const classes[2] = {&GUID_DEVICE_PROCESSOR, &GUID_DEVICE_MEMORY};
    UNREFERENCED_PARAMETER(registryPath);
    RtlZeroMemory(&state, sizeof state);
    KeInitializeSpinLock(&state.lock);
    KeInitializeEvent(&state.wake, SynchronizationEvent, FALSE);

    // As the guest's profile has it: driver_log. No FILE_WRITE_DATA, so that every write goes to the end.
    UNICODE_STRING path = RTL_CONSTANT_STRING(L"\\??\\C:\\ProgramData\\hpnotify\\hpnotify.log");
    OBJECT_ATTRIBUTES attributes;
    IO_STATUS_BLOCK result;
    InitializeObjectAttributes(&attributes, &path, OBJ_KERNEL_HANDLE | OBJ_CASE_INSENSITIVE, NULL, NULL);
    NTSTATUS status = ZwCreateFile(
        &state.file, FILE_APPEND_DATA | SYNCHRONIZE, &attributes, &result, NULL, FILE_ATTRIBUTE_NORMAL,
        FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE, FILE_OPEN_IF,
        FILE_SYNCHRONOUS_IO_NONALERT | FILE_NON_DIRECTORY_FILE | FILE_WRITE_THROUGH, NULL, 0);
    if (!NT_SUCCESS(status))
    {
        return status;
    }
    Record("load", NULL);
    Record("baseline", NULL);
    (void)WriteWaiting();
    status = PsCreateSystemThread(&state.writer, THREAD_ALL_ACCESS, NULL, NULL, NULL, Writer, NULL);
    for (int index = 0; index < 2 && NT_SUCCESS(status); index++)
    {
        status = IoRegisterPlugPlayNotification(
            EventCategoryDeviceInterfaceChange, 0, (PVOID)classes[index], driver, Notification, NULL,
            &state.registrations[index]);
    }
    driver->DriverUnload = Unload;
    if (!NT_SUCCESS(status))
    {
        Unload(driver);
    }
    return status;
}

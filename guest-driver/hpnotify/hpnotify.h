// SPDX-License-Identifier: MIT
// What the files of hpnotify share. All routines run at PASSIVE_LEVEL.
#ifndef HPN_HPNOTIFY_H
#define HPN_HPNOTIFY_H

#include <ntifs.h> // is <ntddk.h> and ZwWaitForSingleObject
#include <wdmguid.h>
#include <poclass.h>

#include "log_format.h"

enum
{
    HPN_INTERFACE_PROCESSOR = 1, // bits of the registry value Interfaces
    HPN_INTERFACE_MEMORY = 2,
    HPN_RING_RECORDS = 512, // twice a burst of 256 DIMMs
    HPN_PATH_CHARS = 260
};

typedef struct HPN_PARAMETERS
{
    ULONG interfaces;
    ULONG synchronous;
    ULONG includeExisting;
    UNICODE_STRING logPath;
    WCHAR logPathBuffer[HPN_PATH_CHARS];
} HPN_PARAMETERS;

typedef enum HPN_KIND
{
    HpnKindLoad,
    HpnKindBaseline,
    HpnKindNotification,
    HpnKindProcessorChange,
    HpnKindUnload
} HPN_KIND;

typedef struct HPN_RECORD
{
    HPN_FACTS facts;
    HPN_CONTEXT context;
    HPN_KIND kind;
    union
    {
        struct
        {
            ULONG interfaces;
            ULONG synchronous;
            ULONG includeExisting;
        } load;
        struct
        {
            GUID classGuid;
            GUID eventGuid;
            char link[HPN_LINK_CHARS + 1];
        } notification;
        KE_PROCESSOR_CHANGE_NOTIFY_CONTEXT processorChange;
    } detail;
} HPN_RECORD;

typedef VOID(NTAPI *HPN_QUERY_SYSTEM_TIME)(PLARGE_INTEGER CurrentTime);

typedef struct HPN_LOG
{
    HPN_QUERY_SYSTEM_TIME querySystemTimePrecise; // NULL where the kernel has none (before Windows 8; Wine)
    HANDLE file;
    HANDLE writer;
    KEVENT wake;
    KSPIN_LOCK lock; // guards the fields from here to ring
    BOOLEAN stopping;
    ULONG oldest;  // index into ring
    ULONG waiting; // records in ring
    ULONG64 nextSequence;
    ULONG64 lost;
    HPN_RECORD ring[HPN_RING_RECORDS];
    HPN_RECORD taken; // the writer's alone, as is line
    HPN_LINE line;
} HPN_LOG;

typedef struct HPN_REGISTRATIONS
{
    PVOID processorChange;
    PVOID processor;
    PVOID memory;
} HPN_REGISTRATIONS;

// parameters.c: reads RegistryPath\Parameters; what is absent has its default, what is wrong fails.
NTSTATUS HpnReadParameters(_In_ PUNICODE_STRING registryPath, _Out_ HPN_PARAMETERS *parameters);

// snapshot.c: the state of the machine now, and what runs there. Memory, which may wait for the memory manager, is
// asked for apart: memoryBytes is 0 when STATUS_INSUFFICIENT_RESOURCES is returned. HpnMemorySource names the routine
// asked.
void HpnFindMemoryRoutine(void);
const char *HpnMemorySource(void);
void HpnTakeSnapshot(_Inout_ HPN_RECORD *record);
NTSTATUS HpnTakeMemory(_Inout_ HPN_FACTS *facts);

// log.c: HpnLogWrite is for when no writer thread runs, HpnLogAppend for when one does; Append never blocks.
NTSTATUS HpnLogOpen(_Inout_ HPN_LOG *log, _In_ PUNICODE_STRING path);
void HpnLogClose(_Inout_ HPN_LOG *log);
NTSTATUS HpnLogStartWriter(_Inout_ HPN_LOG *log);
void HpnLogStopWriter(_Inout_ HPN_LOG *log);
NTSTATUS HpnLogWrite(_Inout_ HPN_LOG *log, _Inout_ HPN_RECORD *record);
void HpnLogAppend(_Inout_ HPN_LOG *log, _Inout_ HPN_RECORD *record);

// record_line.c: the line of a record.
void HpnFormatRecord(_Out_ HPN_LINE *line, _In_ const HPN_RECORD *record);

// registrations.c: all callbacks that parameters ask for, or none and the status of the first that failed.
NTSTATUS HpnRegisterNotifications(
    _Out_ HPN_REGISTRATIONS *registrations, _In_ PDRIVER_OBJECT driverObject, _In_ const HPN_PARAMETERS *parameters,
    _In_ HPN_LOG *log);
void HpnUnregisterNotifications(_Inout_ HPN_REGISTRATIONS *registrations);

#endif

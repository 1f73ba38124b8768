// SPDX-License-Identifier: MIT
// Registers A and B for memory and C for processors, and logs every call.
#include "pnptest.h"
#include <initguid.h>
#include <wdmguid.h>

DEFINE_GUID(PT_CLASS_PROCESSOR, 0x97fadb10, 0x4e33, 0x40ae, 0x35, 0x9c, 0x8b, 0xef, 0x02, 0x9d, 0xbd, 0xd0);
DEFINE_GUID(PT_CLASS_MEMORY, 0x3fd0f03d, 0x92e0, 0x45fb, 0xb7, 0x5c, 0x5e, 0xd8, 0xff, 0xb0, 0x10, 0x21);

typedef struct _PT_REGISTRATION
{
    CHAR Name;
    const GUID *ClassGuid;
    PVOID Entry;
} PT_REGISTRATION;

static struct
{
    ULONG Behaviour;
    PT_API Api;
    PT_REGISTRATION Registrations[3];
    PVOID Processors[3]; // before, the one that may refuse, after; only the middle one without PT_WITNESSES
} g_test = {
    .Registrations =
        {
            {'A', &PT_CLASS_MEMORY, NULL},
            {'B', &PT_CLASS_MEMORY, NULL},
            {'C', &PT_CLASS_PROCESSOR, NULL},
        },
};

DRIVER_INITIALIZE DriverEntry;
static DRIVER_UNLOAD PtUnload;

// PASSIVE_LEVEL, DriverEntry. Zero when there is no such value.
static ULONG PtReadBehaviour(PUNICODE_STRING registryPath)
{
    UNICODE_STRING parameters = RTL_CONSTANT_STRING(L"Parameters");
    UNICODE_STRING name = RTL_CONSTANT_STRING(L"Behaviour");
    OBJECT_ATTRIBUTES attributes;
    HANDLE service = NULL;
    HANDLE key = NULL;
    ULONG behaviour = 0;
    InitializeObjectAttributes(&attributes, registryPath, OBJ_KERNEL_HANDLE, NULL, NULL);
    if (!NT_SUCCESS(ZwOpenKey(&service, KEY_READ, &attributes)))
    {
        return 0;
    }
    InitializeObjectAttributes(&attributes, &parameters, OBJ_KERNEL_HANDLE, service, NULL);
    if (NT_SUCCESS(ZwOpenKey(&key, KEY_READ, &attributes)))
    {
        UCHAR buffer[sizeof(KEY_VALUE_PARTIAL_INFORMATION) + sizeof behaviour];
        ULONG length = 0;
        if (NT_SUCCESS(ZwQueryValueKey(key, &name, KeyValuePartialInformation, buffer, sizeof buffer, &length)))
        {
            RtlCopyMemory(&behaviour, ((const KEY_VALUE_PARTIAL_INFORMATION *)buffer)->Data, sizeof behaviour);
        }
        (void)ZwClose(key);
    }
    (void)ZwClose(service);
    return behaviour;
}

// PASSIVE_LEVEL, any thread.
static BOOLEAN PtMayGoOn(VOID)
{
    UNICODE_STRING path = RTL_CONSTANT_STRING(L"\\??\\C:\\pnptest.go");
    OBJECT_ATTRIBUTES attributes;
    IO_STATUS_BLOCK ioStatus;
    HANDLE file = NULL;
    InitializeObjectAttributes(&attributes, &path, OBJ_KERNEL_HANDLE | OBJ_CASE_INSENSITIVE, NULL, NULL);
    const NTSTATUS status = ZwCreateFile(
        &file, FILE_READ_ATTRIBUTES | SYNCHRONIZE, &attributes, &ioStatus, NULL, FILE_ATTRIBUTE_NORMAL,
        FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE, FILE_OPEN, FILE_SYNCHRONOUS_IO_NONALERT, NULL, 0);
    if (NT_SUCCESS(status))
    {
        (void)ZwClose(file);
    }
    return NT_SUCCESS(status);
}

// PASSIVE_LEVEL, any thread. Does what no callback should do: waits and writes files.
static NTSTATUS NTAPI PtNotified(PVOID structure, PVOID context)
{
    const DEVICE_INTERFACE_CHANGE_NOTIFICATION *notification = structure;
    PT_REGISTRATION *registration = context;
    const UNICODE_STRING *link = notification->SymbolicLinkName;
    PtLog(
        "%c %s class=%s version=%u size=%u irql=%u link=%.*ls", registration->Name,
        IsEqualGUID(&notification->Event, &GUID_DEVICE_INTERFACE_ARRIVAL)   ? "arrival"
        : IsEqualGUID(&notification->Event, &GUID_DEVICE_INTERFACE_REMOVAL) ? "removal"
                                                                            : "other",
        IsEqualGUID(&notification->InterfaceClassGuid, registration->ClassGuid) ? "own" : "foreign",
        notification->Version, notification->Size, KeGetCurrentIrql(), (int)(link->Length / sizeof(WCHAR)),
        link->Buffer);
    if ((g_test.Behaviour & PT_SLOW) != 0)
    {
        LARGE_INTEGER interval = {.QuadPart = -3000000}; // 0.3 s
        (void)KeDelayExecutionThread(KernelMode, FALSE, &interval);
        PtLog("%c done", registration->Name);
    }
    if ((g_test.Behaviour & PT_HOLD) != 0)
    {
        LARGE_INTEGER interval = {.QuadPart = -100000}; // 10 ms, and no longer than a minute in all
        for (ULONG look = 0; look < 6000 && !PtMayGoOn(); look++)
        {
            (void)KeDelayExecutionThread(KernelMode, FALSE, &interval);
        }
        PtLog("%c done", registration->Name);
    }
    if ((g_test.Behaviour & PT_UNREGISTER_INSIDE) != 0)
    {
        PtLog("%c unregistered 0x%08lx", registration->Name, g_test.Api.UnregisterEx(registration->Entry));
        registration->Entry = NULL;
    }
    return (g_test.Behaviour & PT_FAIL) != 0 ? STATUS_UNSUCCESSFUL : STATUS_SUCCESS;
}

// PASSIVE_LEVEL, any thread.
static VOID NTAPI PtProcessorChanged(PVOID context, PKE_PROCESSOR_CHANGE_NOTIFY_CONTEXT change, PNTSTATUS status)
{
    static PCSTR const states[] = {"add_start", "add_complete", "add_failure"};
    if (context != NULL)
    {
        PtLog("%s %s number=%lu", (PCSTR)context, states[change->State], change->NtNumber);
        return;
    }
    PtLog(
        "%s number=%lu group=%u/%u status=0x%08lx operation=0x%08lx", states[change->State], change->NtNumber,
        change->ProcNumber.Group, change->ProcNumber.Number, change->Status, *status);
    if ((g_test.Behaviour & PT_REFUSE) != 0 && change->State == KeProcessorAddStartNotify &&
        change->NtNumber == PT_REFUSED_PROCESSOR)
    {
        *status = STATUS_INSUFFICIENT_RESOURCES;
    }
}

// PASSIVE_LEVEL, DriverEntry.
static VOID PtRegisterProcessors(VOID)
{
    static PSTR const names[] = {"before", NULL, "after"};
    for (ULONG index = 0; index < RTL_NUMBER_OF(names); index++)
    {
        if (names[index] == NULL)
        {
            const ULONG flags = (g_test.Behaviour & PT_ADD_EXISTING) != 0 ? KE_PROCESSOR_CHANGE_ADD_EXISTING : 0;
            g_test.Processors[index] = g_test.Api.RegisterProcessor(PtProcessorChanged, NULL, flags);
            PtLog("synchronous %s", g_test.Processors[index] != NULL ? "registered" : "refused");
        }
        else if ((g_test.Behaviour & PT_WITNESSES) != 0)
        {
            g_test.Processors[index] = g_test.Api.RegisterProcessor(PtProcessorChanged, names[index], 0);
        }
    }
}

// PASSIVE_LEVEL, DriverEntry. Every line must say 0xc000000d.
static VOID PtMisuse(PDRIVER_OBJECT driverObject)
{
    PVOID entry = NULL;
    PVOID guid = (PVOID)&PT_CLASS_MEMORY;
    const IO_NOTIFICATION_EVENT_CATEGORY category = EventCategoryDeviceInterfaceChange;
    const PT_API *api = &g_test.Api;
    PtLog("misuse 0x%08lx", api->Register(EventCategoryReserved, 0, guid, driverObject, PtNotified, NULL, &entry));
    PtLog("misuse 0x%08lx", api->Register(category, 0, NULL, driverObject, PtNotified, NULL, &entry));
    PtLog("misuse 0x%08lx", api->Register(category, 0, guid, NULL, PtNotified, NULL, &entry));
    PtLog("misuse 0x%08lx", api->Register(category, 0, guid, driverObject, NULL, NULL, &entry));
    PtLog("misuse 0x%08lx", api->Register(category, 0, guid, driverObject, PtNotified, NULL, NULL));
    PtLog("misuse 0x%08lx", api->UnregisterEx(driverObject));
    api->DeregisterProcessor(driverObject);
}

// PASSIVE_LEVEL, system thread.
static VOID NTAPI PtUnload(PDRIVER_OBJECT driverObject)
{
    UNREFERENCED_PARAMETER(driverObject);
    PtLog("unload");
    for (ULONG index = 0; index < RTL_NUMBER_OF(g_test.Processors); index++)
    {
        if (g_test.Processors[index] != NULL)
        {
            g_test.Api.DeregisterProcessor(g_test.Processors[index]);
        }
    }
    for (ULONG index = 0; index < RTL_NUMBER_OF(g_test.Registrations) && (g_test.Behaviour & PT_LEAK) == 0; index++)
    {
        PT_REGISTRATION *registration = &g_test.Registrations[index];
        const BOOLEAN obsolete = (g_test.Behaviour & PT_OBSOLETE_UNREGISTER) != 0;
        if (registration->Entry != NULL)
        {
            const NTSTATUS status = (obsolete ? g_test.Api.Unregister : g_test.Api.UnregisterEx)(registration->Entry);
            PtLog("%c unregistered 0x%08lx", registration->Name, status);
        }
    }
}

// PASSIVE_LEVEL. Goes on after a failure, as what fails is what the test looks at.
NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driverObject, PUNICODE_STRING registryPath)
{
    g_test.Behaviour = PtReadBehaviour(registryPath);
    PtFillApi(&g_test.Api, (g_test.Behaviour & PT_BY_NAME) != 0);
    driverObject->DriverUnload = PtUnload;
    PtLogFigures();
    if ((g_test.Behaviour & PT_FAIL_ENTRY) != 0)
    {
        return STATUS_UNSUCCESSFUL;
    }
    if ((g_test.Behaviour & PT_MISUSE) != 0)
    {
        PtMisuse(driverObject);
    }
    if ((g_test.Behaviour & PT_SYNCHRONOUS) != 0)
    {
        PtRegisterProcessors();
    }
    const ULONG flags =
        (g_test.Behaviour & PT_INCLUDE_EXISTING) != 0 ? PNPNOTIFY_DEVICE_INTERFACE_INCLUDE_EXISTING_INTERFACES : 0;
    for (ULONG index = 0; index < RTL_NUMBER_OF(g_test.Registrations); index++)
    {
        PT_REGISTRATION *registration = &g_test.Registrations[index];
        const NTSTATUS status = g_test.Api.Register(
            EventCategoryDeviceInterfaceChange, flags, (PVOID)registration->ClassGuid, driverObject, PtNotified,
            registration, &registration->Entry);
        PtLog("%c registered 0x%08lx", registration->Name, status);
    }
    return STATUS_SUCCESS;
}

// SPDX-License-Identifier: MIT
// The same routines by two ways: from the import table and by name.
#include "pnptest.h"

// PASSIVE_LEVEL.
static PVOID PtFind(PCWSTR name)
{
    UNICODE_STRING string;
    RtlInitUnicodeString(&string, name);
    return MmGetSystemRoutineAddress(&string);
}

// PASSIVE_LEVEL, DriverEntry.
VOID PtFillApi(PT_API *api, BOOLEAN byName)
{
    if (byName)
    {
        api->Register = PtFind(L"IoRegisterPlugPlayNotification");
        api->Unregister = PtFind(L"IoUnregisterPlugPlayNotification");
        api->UnregisterEx = PtFind(L"IoUnregisterPlugPlayNotificationEx");
        api->RegisterProcessor = PtFind(L"KeRegisterProcessorChangeCallback");
        api->DeregisterProcessor = PtFind(L"KeDeregisterProcessorChangeCallback");
        PtLog("unknown name %s", PtFind(L"IoRegisterPlugPlayNotificatio") == NULL ? "not found" : "found");
        PtLog("other name %s", PtFind(L"IoCreateDevice") == NULL ? "not found" : "found");
        return;
    }
    api->Register = IoRegisterPlugPlayNotification;
    api->Unregister = IoUnregisterPlugPlayNotification;
    api->UnregisterEx = IoUnregisterPlugPlayNotificationEx;
    api->RegisterProcessor = KeRegisterProcessorChangeCallback;
    api->DeregisterProcessor = KeDeregisterProcessorChangeCallback;
}

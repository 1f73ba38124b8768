// SPDX-License-Identifier: MIT
// Which names of the kernel API are ours, and the lookup by name that finds them too.
#include "winepnp.h"

static PVOID NTAPI WpMmGetSystemRoutineAddress(PUNICODE_STRING name);

typedef struct _WP_ROUTINE
{
    PCSTR Name;
    PVOID Routine;
} WP_ROUTINE;

static const WP_ROUTINE g_routines[] = {
    {"IoRegisterPlugPlayNotification", WpIoRegisterPlugPlayNotification},
    {"IoUnregisterPlugPlayNotification", WpIoUnregisterPlugPlayNotification},
    {"IoUnregisterPlugPlayNotificationEx", WpIoUnregisterPlugPlayNotificationEx},
    {"KeDeregisterProcessorChangeCallback", WpKeDeregisterProcessorChangeCallback},
    {"KeQueryActiveGroupCount", WpKeQueryActiveGroupCount},
    {"KeQueryActiveProcessorCount", WpKeQueryActiveProcessorCount},
    {"KeQueryActiveProcessorCountEx", WpKeQueryActiveProcessorCountEx},
    {"KeQueryActiveProcessors", WpKeQueryActiveProcessors},
    {"KeQueryMaximumGroupCount", WpKeQueryMaximumGroupCount},
    {"KeQueryMaximumProcessorCount", WpKeQueryMaximumProcessorCount},
    {"KeQueryMaximumProcessorCountEx", WpKeQueryMaximumProcessorCountEx},
    {"KeRegisterProcessorChangeCallback", WpKeRegisterProcessorChangeCallback},
    {"MmGetPhysicalMemoryRanges", WpMmGetPhysicalMemoryRanges},
    {"MmGetSystemRoutineAddress", WpMmGetSystemRoutineAddress},
};

// Any IRQL, any thread.
PVOID WpFindRoutine(PCSTR name)
{
    for (ULONG index = 0; index < RTL_NUMBER_OF(g_routines); index++)
    {
        if (strcmp(g_routines[index].Name, name) == 0)
        {
            return g_routines[index].Routine;
        }
    }
    return NULL;
}

// PASSIVE_LEVEL, any thread.
static PVOID NTAPI WpMmGetSystemRoutineAddress(PUNICODE_STRING name)
{
    UNICODE_STRING newer = RTL_CONSTANT_STRING(L"MmGetPhysicalMemoryRangesEx2");
    if (WpIsOn(WINEPNP_SWITCH_NEWER) && RtlEqualUnicodeString(name, &newer, FALSE))
    {
        return WpMmGetPhysicalMemoryRangesEx2;
    }
    for (ULONG index = 0; index < RTL_NUMBER_OF(g_routines); index++)
    {
        PCSTR candidate = g_routines[index].Name;
        const ULONG characters = name->Length / sizeof(WCHAR);
        ULONG same = 0;
        while (same < characters && candidate[same] != '\0' && name->Buffer[same] == (WCHAR)candidate[same])
        {
            same += 1;
        }
        if (same == characters && candidate[same] == '\0')
        {
            return g_routines[index].Routine;
        }
    }
    return MmGetSystemRoutineAddress(name);
}

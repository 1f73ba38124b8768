// SPDX-License-Identifier: MIT
// The line of a record, as docs/driver-log.md says.
#include "hpnotify.h"

static const char HPN_DRIVER[] = "hpnotify/1.0.0";

static const char *HpnInterfacesWord(ULONG interfaces)
{
    switch (interfaces)
    {
    case HPN_INTERFACE_PROCESSOR:
        return "processor";
    case HPN_INTERFACE_MEMORY:
        return "memory";
    default:
        return "both";
    }
}

static const char *HpnChangeWord(KE_PROCESSOR_CHANGE_NOTIFY_STATE change)
{
    switch (change)
    {
    case KeProcessorAddStartNotify:
        return "add_start";
    case KeProcessorAddCompleteNotify:
        return "add_complete";
    case KeProcessorAddFailureNotify:
        return "add_failure";
    default:
        return "other";
    }
}

static void HpnFormatLoad(HPN_LINE *line, const HPN_RECORD *record)
{
    LARGE_INTEGER frequency;
    (void)KeQueryPerformanceCounter(&frequency); // only the frequency is wanted
    HpnBeginLine(line, "load", &record->facts);
    HpnAppendNumber(line, "format", HPN_LOG_FORMAT);
    HpnAppendWord(line, "driver", HPN_DRIVER);
    HpnAppendNumber(line, "qpc_hz", (ULONG64)frequency.QuadPart);
    HpnAppendWord(line, "interfaces", HpnInterfacesWord(record->detail.load.interfaces));
    HpnAppendNumber(line, "synchronous", record->detail.load.synchronous);
    HpnAppendNumber(line, "existing", record->detail.load.includeExisting);
    HpnAppendWord(line, "memory_from", HpnMemorySource());
}

static void HpnFormatNotification(HPN_LINE *line, const HPN_RECORD *record)
{
    const GUID *classGuid = &record->detail.notification.classGuid;
    const GUID *eventGuid = &record->detail.notification.eventGuid;
    const char *classWord = IsEqualGUID(classGuid, &GUID_DEVICE_PROCESSOR) ? "processor"
                            : IsEqualGUID(classGuid, &GUID_DEVICE_MEMORY)  ? "memory"
                                                                           : NULL;
    const char *eventWord = IsEqualGUID(eventGuid, &GUID_DEVICE_INTERFACE_ARRIVAL)   ? "arrival"
                            : IsEqualGUID(eventGuid, &GUID_DEVICE_INTERFACE_REMOVAL) ? "removal"
                                                                                     : NULL;
    HpnBeginLine(line, "notification", &record->facts);
    HpnAppendWord(line, "class", classWord != NULL ? classWord : "other");
    HpnAppendWord(line, "event", eventWord != NULL ? eventWord : "other");
    HpnAppendWord(line, "link", record->detail.notification.link);
    if (classWord == NULL || eventWord == NULL)
    {
        HpnAppendGuid(line, "class_guid", classGuid);
        HpnAppendGuid(line, "event_guid", eventGuid);
    }
}

static void HpnFormatProcessorChange(HPN_LINE *line, const HPN_RECORD *record)
{
    const KE_PROCESSOR_CHANGE_NOTIFY_CONTEXT *change = &record->detail.processorChange;
    HpnBeginLine(line, "processor_change", &record->facts);
    HpnAppendWord(line, "state", HpnChangeWord(change->State));
    HpnAppendNumber(line, "number", change->NtNumber);
    HpnAppendNumber(line, "group", change->ProcNumber.Group);
    HpnAppendNumber(line, "group_number", change->ProcNumber.Number);
    HpnAppendStatus(line, "status", (ULONG)change->Status);
}

// PASSIVE_LEVEL, the thread that writes the log, no lock held.
_Use_decl_annotations_ void HpnFormatRecord(HPN_LINE *line, const HPN_RECORD *record)
{
    switch (record->kind)
    {
    case HpnKindLoad:
        HpnFormatLoad(line, record);
        break;
    case HpnKindBaseline:
        HpnBeginLine(line, "baseline", &record->facts);
        break;
    case HpnKindNotification:
        HpnFormatNotification(line, record);
        break;
    case HpnKindProcessorChange:
        HpnFormatProcessorChange(line, record);
        break;
    case HpnKindUnload:
        HpnBeginLine(line, "unload", &record->facts);
        break;
    }
    HpnAppendContext(line, &record->context);
    HpnEndLine(line);
}

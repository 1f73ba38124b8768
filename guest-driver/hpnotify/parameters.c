// SPDX-License-Identifier: MIT
// The registry values of the service's Parameters key.
#include "hpnotify.h"

static const WCHAR HPN_DEFAULT_LOG_PATH[] = L"\\??\\C:\\ProgramData\\hpnotify\\hpnotify.log";

// A value as the registry hands it out: the structure and the longest data accepted.
typedef union HPN_VALUE
{
    KEY_VALUE_PARTIAL_INFORMATION information;
    UCHAR bytes[sizeof(KEY_VALUE_PARTIAL_INFORMATION) + HPN_PATH_CHARS * sizeof(WCHAR)];
} HPN_VALUE;

// PASSIVE_LEVEL. STATUS_OBJECT_NAME_NOT_FOUND when absent, STATUS_OBJECT_TYPE_MISMATCH when of another type.
static NTSTATUS HpnQueryValue(HANDLE key, PCWSTR name, ULONG type, HPN_VALUE *value)
{
    UNICODE_STRING valueName;
    ULONG needed = 0;
    RtlInitUnicodeString(&valueName, name);
    NTSTATUS status = ZwQueryValueKey(key, &valueName, KeyValuePartialInformation, value, sizeof *value, &needed);
    if (status == STATUS_BUFFER_OVERFLOW)
    {
        return STATUS_NAME_TOO_LONG;
    }
    if (NT_SUCCESS(status) && value->information.Type != type)
    {
        return STATUS_OBJECT_TYPE_MISMATCH;
    }
    return status;
}

// PASSIVE_LEVEL. An absent value leaves *number; one above maximum is STATUS_INVALID_PARAMETER.
static NTSTATUS HpnQueryNumber(HANDLE key, PCWSTR name, ULONG minimum, ULONG maximum, ULONG *number)
{
    HPN_VALUE value;
    NTSTATUS status = HpnQueryValue(key, name, REG_DWORD, &value);
    if (status == STATUS_OBJECT_NAME_NOT_FOUND)
    {
        return STATUS_SUCCESS;
    }
    if (!NT_SUCCESS(status))
    {
        return status;
    }
    if (value.information.DataLength != sizeof *number)
    {
        return STATUS_OBJECT_TYPE_MISMATCH;
    }
    RtlCopyMemory(number, value.information.Data, sizeof *number);
    return *number >= minimum && *number <= maximum ? STATUS_SUCCESS : STATUS_INVALID_PARAMETER;
}

// PASSIVE_LEVEL. An absent value leaves the path. The data may end in one NUL, in several or in none.
static NTSTATUS HpnQueryLogPath(HANDLE key, HPN_PARAMETERS *parameters)
{
    HPN_VALUE value;
    NTSTATUS status = HpnQueryValue(key, L"LogPath", REG_SZ, &value);
    if (status == STATUS_OBJECT_NAME_NOT_FOUND)
    {
        return STATUS_SUCCESS;
    }
    if (!NT_SUCCESS(status))
    {
        return status;
    }
    if (value.information.DataLength > sizeof parameters->logPathBuffer)
    {
        return STATUS_NAME_TOO_LONG; // the padding of the structure leaves room for a little more than the buffer has
    }
    USHORT units = (USHORT)(value.information.DataLength / sizeof(WCHAR));
    RtlCopyMemory(parameters->logPathBuffer, value.information.Data, units * sizeof(WCHAR));
    while (units > 0 && parameters->logPathBuffer[units - 1] == L'\0')
    {
        units--;
    }
    parameters->logPath.Buffer = parameters->logPathBuffer;
    parameters->logPath.Length = (USHORT)(units * sizeof(WCHAR));
    parameters->logPath.MaximumLength = sizeof parameters->logPathBuffer;
    return units > 0 ? STATUS_SUCCESS : STATUS_INVALID_PARAMETER;
}

// PASSIVE_LEVEL. An absent key leaves *key NULL and is a success.
static NTSTATUS HpnOpenKey(HANDLE parent, PUNICODE_STRING name, HANDLE *key)
{
    OBJECT_ATTRIBUTES attributes;
    InitializeObjectAttributes(&attributes, name, OBJ_KERNEL_HANDLE | OBJ_CASE_INSENSITIVE, parent, NULL);
    *key = NULL;
    NTSTATUS status = ZwOpenKey(key, KEY_READ, &attributes);
    if (!NT_SUCCESS(status))
    {
        *key = NULL;
    }
    return status == STATUS_OBJECT_NAME_NOT_FOUND ? STATUS_SUCCESS : status;
}

// PASSIVE_LEVEL, DriverEntry's thread.
_Use_decl_annotations_ NTSTATUS HpnReadParameters(PUNICODE_STRING registryPath, HPN_PARAMETERS *parameters)
{
    parameters->interfaces = HPN_INTERFACE_PROCESSOR | HPN_INTERFACE_MEMORY;
    parameters->synchronous = 0;
    parameters->includeExisting = 0;
    RtlInitUnicodeString(&parameters->logPath, HPN_DEFAULT_LOG_PATH);

    UNICODE_STRING name = RTL_CONSTANT_STRING(L"Parameters");
    HANDLE service;
    HANDLE key = NULL;
    NTSTATUS status = HpnOpenKey(NULL, registryPath, &service);
    if (!NT_SUCCESS(status) || service == NULL)
    {
        return status;
    }
    status = HpnOpenKey(service, &name, &key);
    (void)ZwClose(service); // fails only for a handle that is not ours
    if (!NT_SUCCESS(status) || key == NULL)
    {
        return status;
    }
    status =
        HpnQueryNumber(key, L"Interfaces", 1, HPN_INTERFACE_PROCESSOR | HPN_INTERFACE_MEMORY, &parameters->interfaces);
    if (NT_SUCCESS(status))
    {
        status = HpnQueryNumber(key, L"Synchronous", 0, 1, &parameters->synchronous);
    }
    if (NT_SUCCESS(status))
    {
        status = HpnQueryNumber(key, L"IncludeExisting", 0, 1, &parameters->includeExisting);
    }
    if (NT_SUCCESS(status))
    {
        status = HpnQueryLogPath(key, parameters);
    }
    (void)ZwClose(key); // as above
    return status;
}

// SPDX-License-Identifier: MIT
// The result file.
#include "pnptest.h"
#include <stdarg.h>

int __cdecl _vsnprintf(char *buffer, size_t size, const char *format, va_list arguments);

// PASSIVE_LEVEL, any thread. Opened for every line: this is a test, and the file may be read at any time.
VOID PtLog(PCSTR format, ...)
{
    CHAR line[600];
    va_list arguments;
    va_start(arguments, format);
    int length = _vsnprintf(line, sizeof line - 1, format, arguments);
    va_end(arguments);
    if (length < 0 || (SIZE_T)length > sizeof line - 1)
    {
        length = sizeof line - 1;
    }
    line[length] = '\n';

    UNICODE_STRING path = RTL_CONSTANT_STRING(L"\\??\\C:\\pnptest.log");
    OBJECT_ATTRIBUTES attributes;
    IO_STATUS_BLOCK ioStatus;
    HANDLE file = NULL;
    InitializeObjectAttributes(&attributes, &path, OBJ_KERNEL_HANDLE | OBJ_CASE_INSENSITIVE, NULL, NULL);
    const NTSTATUS status = ZwCreateFile(
        &file, FILE_APPEND_DATA | SYNCHRONIZE, &attributes, &ioStatus, NULL, FILE_ATTRIBUTE_NORMAL,
        FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE, FILE_OPEN_IF,
        FILE_SYNCHRONOUS_IO_NONALERT | FILE_NON_DIRECTORY_FILE, NULL, 0);
    if (NT_SUCCESS(status))
    {
        (void)ZwWriteFile(file, NULL, NULL, NULL, &ioStatus, line, (ULONG)length + 1, NULL, NULL);
        (void)ZwClose(file);
    }
}

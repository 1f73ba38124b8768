// SPDX-License-Identifier: MIT
// hpfeed [--sysfs DIR] [--uevents FIFO] [--log FILE] [--pid FILE] [--detach] -- COMMAND...: COMMAND runs pnpfeed.exe.
#include "hpfeed.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static const int UNDER_WAY_MS = 10; // between looks at what Linux is taking in
static const int REMOVING_MS = 100; // between looks at the slots after a removal
static const int REMOVED_MS = 3000; // how long after its uevent a removal may show in the status

typedef struct
{
    const char *sysfs;
    const char *uevents;
    const char *log;
    const char *pid;
    bool detach;
    char **command;
} options;

static options parse_options(int count, char *arguments[])
{
    static const struct option known[] = {
        {"sysfs", required_argument, NULL, 's'}, {"uevents", required_argument, NULL, 'u'},
        {"log", required_argument, NULL, 'l'},   {"pid", required_argument, NULL, 'p'},
        {"detach", no_argument, NULL, 'd'},      {NULL, 0, NULL, 0},
    };
    options parsed = {.sysfs = "/sys"};
    bool usable = true;
    for (int option = 0; (option = getopt_long(count, arguments, "+", known, NULL)) != -1;)
    {
        switch (option)
        {
        case 's':
            parsed.sysfs = optarg;
            break;
        case 'u':
            parsed.uevents = optarg;
            break;
        case 'l':
            parsed.log = optarg;
            break;
        case 'p':
            parsed.pid = optarg;
            break;
        case 'd':
            parsed.detach = true;
            break;
        default:
            usable = false;
            break;
        }
    }
    if (!usable || optind >= count)
    {
        (void)fprintf(
            stderr,
            "usage: hpfeed [--sysfs DIR] [--uevents FIFO] [--log FILE] [--pid FILE] [--detach] -- COMMAND...\n");
        exit(2);
    }
    parsed.command = arguments + optind;
    return parsed;
}

// Returns in the child, with the file to say there that it is ready; the parent ends when it is, or with its status.
static int detach(void)
{
    int ready[2];
    if (pipe2(ready, O_CLOEXEC) != 0)
    {
        hf_log("cannot create a pipe: %m");
        exit(1);
    }
    const pid_t child = fork();
    if (child < 0)
    {
        hf_log("cannot fork: %m");
        exit(1);
    }
    if (child == 0)
    {
        (void)close(ready[0]);
        (void)setsid();
        return ready[1];
    }
    char byte = 0;
    int status = 0;
    (void)close(ready[1]);
    if (read(ready[0], &byte, 1) == 1)
    {
        _exit(0);
    }
    (void)waitpid(child, &status, 0);
    _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 1);
}

static void write_pid(const char *path)
{
    FILE *file = fopen(path, "we");
    if (file == NULL || fprintf(file, "%d\n", (int)getpid()) < 0 || fclose(file) != 0)
    {
        hf_log("cannot write %s: %m", path);
        exit(1);
    }
}

// Also gives stdout back, so that whoever reads it sees its end.
static void say_ready(int detached)
{
    (void)printf("hpfeed: ready\n");
    (void)fflush(stdout);
    if (detached < 0)
    {
        return;
    }
    const int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    (void)dup2(null, STDIN_FILENO);
    (void)dup2(null, STDOUT_FILENO);
    (void)close(null);
    if (write(detached, "r", 1) != 1)
    {
        hf_log("nobody waits for this to be ready");
    }
    (void)close(detached);
}

static void watch(int uevents)
{
    int64_t removing_until_ms = 0;
    for (;;)
    {
        const bool under_way = hf_advance_slots();
        const bool removing = hf_now_ms() < removing_until_ms;
        struct pollfd wait[] = {{.fd = uevents, .events = POLLIN}, {.fd = hf_feed_file()}};
        const int ready = poll(wait, 2, under_way ? UNDER_WAY_MS : removing ? REMOVING_MS : -1);
        if (ready < 0 && errno != EINTR)
        {
            hf_log("cannot wait for uevents: %m");
            exit(1);
        }
        if (ready > 0 && wait[1].revents != 0)
        {
            hf_log("the feed has ended");
            exit(1);
        }
        const hf_uevent seen = ready > 0 ? hf_drain_uevents(uevents) : HF_NOTHING;
        if (seen == HF_REMOVING)
        {
            removing_until_ms = hf_now_ms() + REMOVED_MS;
        }
        if (seen != HF_NOTHING || (removing && !under_way))
        {
            hf_scan_slots(true, removing || seen == HF_REMOVING);
        }
    }
}

int main(int count, char *arguments[])
{
    const options parsed = parse_options(count, arguments);
    char request[HF_LINE_SIZE];
    char reply[HF_LINE_SIZE];
    const int detached = parsed.detach ? detach() : -1;
    (void)signal(SIGPIPE, SIG_IGN);
    if (parsed.log != NULL)
    {
        hf_log_also_to(parsed.log);
    }
    if (parsed.pid != NULL)
    {
        write_pid(parsed.pid);
    }
    hf_set_sysfs(parsed.sysfs);
    const int uevents = hf_open_uevents(parsed.uevents); // before the first look, so that nothing falls between
    hf_start_feed(parsed.command);
    if (!hf_system_line(request, sizeof request) || !hf_ask(request, reply, sizeof reply))
    {
        hf_log("winepnp does not take the system's figures");
        return 1;
    }
    hf_scan_slots(false, false);
    say_ready(detached);
    watch(uevents);
}

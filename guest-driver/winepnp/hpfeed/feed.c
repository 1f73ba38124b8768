// SPDX-License-Identifier: MIT
// The pnpfeed process on the other end of two pipes.
#include "hpfeed.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

static const int64_t REPLY_WITHIN_MS = 60000; // the first one includes the start of Wine

static int g_requests = -1;
static int g_replies = -1;

void hf_start_feed(char *const command[])
{
    int requests[2];
    int replies[2];
    if (pipe2(requests, O_CLOEXEC) != 0 || pipe2(replies, O_CLOEXEC) != 0)
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
        (void)prctl(PR_SET_PDEATHSIG, SIGTERM);
        (void)signal(SIGPIPE, SIG_DFL);
        (void)dup2(requests[0], STDIN_FILENO);
        (void)dup2(replies[1], STDOUT_FILENO);
        (void)execvp(command[0], command);
        hf_log("cannot run %s: %m", command[0]);
        _exit(127);
    }
    (void)close(requests[0]);
    (void)close(replies[1]);
    g_requests = requests[1];
    g_replies = replies[0];
}

int hf_feed_file(void)
{
    return g_replies;
}

// Reads one line; ends the process when none comes.
static void read_reply(char *reply, size_t size)
{
    const int64_t until_ms = hf_now_ms() + REPLY_WITHIN_MS;
    size_t length = 0;
    while (length + 1 < size)
    {
        struct pollfd wait = {.fd = g_replies, .events = POLLIN};
        const int64_t left_ms = until_ms - hf_now_ms();
        const int ready = poll(&wait, 1, left_ms > 0 ? (int)left_ms : 0);
        if (ready < 0 && errno == EINTR)
        {
            continue;
        }
        if (ready <= 0)
        {
            hf_log("no reply within %d s", (int)(REPLY_WITHIN_MS / 1000));
            exit(1);
        }
        // Byte by byte: a reply is short, and nothing of the next one may be taken.
        if (read(g_replies, reply + length, 1) != 1)
        {
            hf_log("the feed has ended");
            exit(1);
        }
        if (reply[length] == '\n')
        {
            break;
        }
        length += 1;
    }
    reply[length] = '\0';
    if (length != 0 && reply[length - 1] == '\r')
    {
        reply[length - 1] = '\0';
    }
}

bool hf_ask(const char *request, char *reply, size_t size)
{
    char line[HF_LINE_SIZE];
    const int length = snprintf(line, sizeof line, "%s\n", request);
    hf_log("> %s", request);
    if (length < 0 || (size_t)length >= sizeof line || write(g_requests, line, (size_t)length) != length)
    {
        hf_log("the feed takes no requests");
        exit(1);
    }
    read_reply(reply, size);
    hf_log("< %s", reply);
    return strncmp(reply, "ok", 2) == 0 && (reply[2] == '\0' || reply[2] == ' ');
}

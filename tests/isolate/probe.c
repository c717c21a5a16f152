// What a process may do: one line for each attempt, with the error's name. Static, for a root directory without libraries.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/keyctl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/swap.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void say(const char *what, long result) {
    printf("%s: %s\n", what, result < 0 ? strerrorname_np(errno) : "ok");
    fflush(stdout);
}

// In a process of its own: what it changes ends with it.
#define APART(what, call)                                                                                              \
    do {                                                                                                               \
        fflush(stdout);                                                                                                \
        pid_t pid = fork();                                                                                            \
        if (pid == 0) {                                                                                                \
            say(what, (call));                                                                                         \
            _exit(0);                                                                                                  \
        }                                                                                                              \
        int status;                                                                                                    \
        waitpid(pid, &status, 0);                                                                                      \
        if (!WIFEXITED(status))                                                                                        \
            printf("%s: signal %d\n", what, WTERMSIG(status));                                                         \
    } while (0)

// The name of the session keyring, where the filter lets it be asked for.
static void keyring(void) {
    char text[256] = "";
    long length = syscall(SYS_keyctl, KEYCTL_DESCRIBE, KEY_SPEC_SESSION_KEYRING, text, sizeof text - 1);
    char *name = strrchr(text, ';');
    // It is named by the container's id, with or without a word before it.
    int own = name && (!strncmp(name, ";_ses.", 6) || strspn(name + 1, "0123456789abcdef") == 64);
    printf("keyring: %s\n", length < 0 ? strerrorname_np(errno) : own ? "own" : text);
}

// What becomes of each system call with arguments that make no sense: refused by the filter, or by the call itself.
static void sweep(void) {
    // Those that end, stop, wait or make something whatever their arguments.
    static const int left_out[] = {SYS_exit, SYS_exit_group, SYS_pause, SYS_rt_sigreturn, SYS_fork, SYS_vfork, SYS_vhangup,
                                   SYS_sync, SYS_restart_syscall, SYS_msgget};
    for (int call = 0; call < 512; call++) {
        int skip = 0;
        for (size_t i = 0; i < sizeof left_out / sizeof *left_out; i++)
            skip |= left_out[i] == call;
        if (skip)
            continue;
        fflush(stdout);
        pid_t pid = fork();
        if (pid == 0) {
            alarm(1);
            long result = syscall(call, -1L, -1L, -1L, -1L, -1L, -1L);
            _exit(result >= 0 ? 0 : errno);
        }
        int status = 0;
        waitpid(pid, &status, 0);
        if (WIFSIGNALED(status))
            printf("call %d: signal %d\n", call, WTERMSIG(status));
        else
            printf("call %d: %s\n", call, WEXITSTATUS(status) ? strerrorname_np(WEXITSTATUS(status)) : "ok");
    }
}

int main(void) {
    static const struct { const char *name; int family; } families[] = {
        {"unix", AF_UNIX}, {"inet", AF_INET}, {"inet6", AF_INET6}, {"netlink", AF_NETLINK}, {"packet", AF_PACKET},
        {"alg", AF_ALG}, {"vsock", AF_VSOCK}, {"can", AF_CAN}, {"tipc", AF_TIPC}, {"bluetooth", AF_BLUETOOTH},
    };
    for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
        char name[64];
        snprintf(name, sizeof name, "socket %s", families[i].name);
        int type = families[i].family == AF_ALG ? SOCK_SEQPACKET : SOCK_RAW;
        if (families[i].family == AF_UNIX || families[i].family == AF_VSOCK)
            type = SOCK_STREAM;
        APART(name, socket(families[i].family, type, 0));
    }
    static const struct { const char *name; int flag; } namespaces[] = {
        {"user", CLONE_NEWUSER}, {"mount", CLONE_NEWNS}, {"pid", CLONE_NEWPID}, {"net", CLONE_NEWNET},
        {"uts", CLONE_NEWUTS}, {"ipc", CLONE_NEWIPC}, {"cgroup", CLONE_NEWCGROUP},
    };
    for (size_t i = 0; i < sizeof namespaces / sizeof *namespaces; i++) {
        char name[64];
        snprintf(name, sizeof name, "unshare %s", namespaces[i].name);
        APART(name, unshare(namespaces[i].flag));
        snprintf(name, sizeof name, "clone %s", namespaces[i].name);
        APART(name, syscall(SYS_clone, namespaces[i].flag | SIGCHLD, 0, 0, 0, 0));
    }
    struct timespec now = {0};
    APART("clone3", syscall(SYS_clone3, NULL, 0));
    APART("setns", setns(-1, 0));
    APART("mount tmpfs", mount("x", "/tmp", "tmpfs", 0, NULL));
    APART("mount proc", mount("x", "/tmp", "proc", 0, NULL));
    APART("remount /", mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND, NULL));
    APART("umount /proc", umount2("/proc", MNT_DETACH));
    APART("fsopen", syscall(SYS_fsopen, "tmpfs", 0));
    APART("open_tree", syscall(SYS_open_tree, -100, "/", 1));
    APART("move_mount", syscall(SYS_move_mount, -1, "", -1, "", 0));
    APART("pivot_root", syscall(SYS_pivot_root, ".", "."));
    APART("chroot", chroot("/"));
    APART("sethostname", sethostname("x", 1));
    APART("keyctl", syscall(SYS_keyctl, 0, 0, 0, 0, 0));
    APART("add_key", syscall(SYS_add_key, "user", "x", "x", 1, -3));
    APART("bpf", syscall(SYS_bpf, 0, NULL, 0));
    APART("perf_event_open", syscall(SYS_perf_event_open, NULL, 0, -1, -1, 0));
    APART("io_uring_setup", syscall(SYS_io_uring_setup, 1, NULL));
    APART("userfaultfd", syscall(SYS_userfaultfd, 0));
    APART("open_by_handle_at", syscall(SYS_open_by_handle_at, -1, NULL, 0));
    APART("init_module", syscall(SYS_init_module, NULL, 0, ""));
    APART("kexec_load", syscall(SYS_kexec_load, 0, 0, NULL, 0));
    APART("reboot", syscall(SYS_reboot, 0, 0, 0, NULL));
    APART("swapon", swapon("/tmp", 0));
    APART("settimeofday", clock_settime(CLOCK_REALTIME, &now));
    APART("syslog", syscall(SYS_syslog, 3, NULL, 0));
    APART("ptrace", ptrace(PTRACE_TRACEME, 0, NULL, NULL));
    APART("personality", syscall(SYS_personality, 0x0040000));
    APART("nice -5", setpriority(0, 0, -5));
    APART("mknod null", mknod("/tmp/probe-null", S_IFCHR | 0600, makedev(1, 3)));
    APART("open null", open("/tmp/probe-null", O_RDWR));
    APART("mknod kmsg", mknod("/tmp/probe-kmsg", S_IFCHR | 0600, makedev(1, 11)));
    APART("open kmsg", open("/tmp/probe-kmsg", O_RDONLY));
    APART("mknod disk", mknod("/tmp/probe-disk", S_IFBLK | 0600, makedev(254, 0)));
    APART("open disk", open("/tmp/probe-disk", O_RDONLY));
    unlink("/tmp/probe-null");
    unlink("/tmp/probe-kmsg");
    unlink("/tmp/probe-disk");
    APART("write /proc/sys", open("/proc/sys/kernel/core_pattern", O_WRONLY));
    APART("write sysrq", open("/proc/sysrq-trigger", O_WRONLY));
    APART("write uevent_helper", open("/sys/kernel/uevent_helper", O_WRONLY));
    APART("open kcore", open("/proc/kcore", O_RDONLY));
    keyring();
    sweep();
    printf("dumpable: %d\n", prctl(PR_GET_DUMPABLE));
    printf("securebits: %d\n", prctl(PR_GET_SECUREBITS));
    char cwd[4096];
    printf("cwd: %s\n", getcwd(cwd, sizeof cwd) ? cwd : "?");
    printf("sid: %d pgid: %d tty: %d\n", getsid(0) > 0, getpgrp() > 0, open("/dev/tty", O_RDWR) >= 0);
    return 0;
}

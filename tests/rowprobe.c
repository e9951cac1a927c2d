/* Asks, from inside, what a process can do that a tool has started in a root file system.
 *
 * rowprobe ask PORT KEY...    a line for each: KEY <tab> held|open|n/a|error <tab> evidence
 * rowprobe caller N CMD...    be a careless caller of CMD: open files, an odd directory, a key, groups,
 *                             ignored and blocked signals, no limit on core files. N is 1 for groups too
 * rowprobe serve              be a process of the host that nobody inside may reach; prints its port
 * rowprobe bare ROOT CMD...   chroot(2) without chdir(2), as it is often written
 * rowprobe watch SECONDS      whose program can be opened for writing, while others join
 * rowprobe orphans            leave some, and count the zombies
 * rowprobe euid               whose rights it has
 * rowprobe type               put a line into the terminal on stdin, as if somebody had typed it
 * rowprobe typed              how many bytes wait in the terminal on stdin
 *
 * Static, so that it runs in any root. Nothing is written but in /tmp of that root. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/bpf.h>
#include <linux/io_uring.h>
#include <linux/perf_event.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SECRET "canary-secret"
#define KEY "nsboxcanary"
#define SOCKET_NAME "\0nsbox-canary"
#define COMM "canaryd"
enum { CGROUP1 = 0x27e0eb, CGROUP2 = 0x63677270 };

static const char *key;
static int port;

static void say(const char *verdict, const char *form, ...) {
    va_list rest;
    printf("%s\t%s\t", key, verdict);
    va_start(rest, form);
    vprintf(form, rest);
    va_end(rest);
    putchar('\n');
    fflush(stdout);
    _exit(0);
}
#define HELD(...) say("held", __VA_ARGS__)
#define OPEN(...) say("open", __VA_ARGS__)
#define NONE(...) say("n/a", __VA_ARGS__)
static const char *why(void) { return strerrorname_np(errno); }

/* A call that must be refused, whatever refuses it. */
static void refused(const char *what, long result) {
    int cause = errno;
    if (result >= 0) OPEN("%s works", what);
    errno = cause;
    HELD("%s: %s", what, why());
}

static long slurp(const char *path, char *into, size_t room) {
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    size_t have = 0;
    long got = 0;
    if (fd < 0) return -1;
    while (have < room - 1 && (got = read(fd, into + have, room - 1 - have)) > 0) have += got;
    close(fd);
    into[have] = 0;
    for (size_t at = 0; at < have; at++) if (!into[at]) into[at] = ' '; /* of environ and cmdline */
    return have;
}

static char *line_of(const char *path, const char *name) { /* the rest of the line that begins with `name` */
    static char text[1 << 16];
    if (slurp(path, text, sizeof text) < 0) return NULL;
    char *at = strstr(text, name);
    if (!at) return NULL;
    at += strlen(name);
    at += strspn(at, " \t");
    at[strcspn(at, "\n")] = 0;
    return at;
}

static unsigned long long hex(const char *name) {
    char *at = line_of("/proc/self/status", name);
    return at ? strtoull(at, NULL, 16) : 0;
}

/* The next number of /proc, in any order; 0 at the end. */
static int next_pid(DIR *proc) {
    struct dirent *entry;
    while (proc && (entry = readdir(proc)))
        if (atoi(entry->d_name) > 0) return atoi(entry->d_name);
    return 0;
}

/* ---- what the caller has, and the command should not ---- */

static void descriptors(void) {
    char list[256] = "", target[200], name[64];
    for (int fd = 3; fd < 256; fd++) {
        if (fcntl(fd, F_GETFD) < 0) continue;
        snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
        ssize_t length = readlink(name, target, sizeof target - 1);
        snprintf(list + strlen(list), sizeof list - strlen(list), " %d -> %.*s", fd, (int)(length < 0 ? 0 : length), target);
    }
    if (*list) OPEN("descriptors%s", list);
    HELD("0, 1 and 2 only");
}

static void directory(void) {
    char here[4096];
    long length = syscall(SYS_getcwd, here, sizeof here);
    for (int up = 0; up < 4; up++) {
        char path[32] = "";
        for (int step = 0; step < up; step++) strcat(path, "../");
        strcat(path, "marker");
        if (access(path, F_OK) == 0) OPEN("%s is the host's", path);
    }
    if (length < 0 || *here != '/') OPEN("getcwd(2): %s", length < 0 ? why() : here);
    HELD("getcwd(2): %s", here);
}

static char story[300]; /* how `overwritable` found out */

/* Whether the program of another process could be written to once it is not running any more. */
static int overwritable(int pid) {
    char path[64], target[200];
    snprintf(path, sizeof path, "/proc/%d/exe", pid);
    int fd = open(path, O_WRONLY | O_CLOEXEC), busy = fd < 0 && errno == ETXTBSY;
    if (fd < 0 && !busy) return 0;
    close(fd);
    struct stat its, mine;
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    int seals = fcntl(fd, F_GET_SEALS), own = fstat(fd, &its) < 0;
    close(fd);
    ssize_t length = readlink(path, target, sizeof target - 1); /* it may have ended by now */
    target[length < 0 ? 0 : length] = 0;
    const char *const ours[] = {"/proc/self/exe", "/bin/busybox", target};
    for (int at = 0; at < 3; at++)
        own |= stat(ours[at], &mine) == 0 && its.st_ino == mine.st_ino && its.st_dev == mine.st_dev;
    snprintf(story, sizeof story, "%s: %s", busy ? "ETXTBSY" : "it opens", target);
    return !own && !(seals > 0 && seals & F_SEAL_WRITE);
}

static void programs(void) {
    DIR *proc = opendir("/proc");
    int pid, others = 0;
    while ((pid = next_pid(proc))) {
        if (pid == getpid() || pid == getppid()) continue;
        others++;
        if (overwritable(pid)) OPEN("open(2) of /proc/%d/exe for writing: %s", pid, story);
    }
    HELD("%d others, none with a program of the host", others);
}

static void roots(void) {
    DIR *proc = opendir("/proc");
    char path[64];
    int pid;
    while ((pid = next_pid(proc)))
        for (int cwd = 0; cwd < 2; cwd++) {
            snprintf(path, sizeof path, "/proc/%d/%s/canary/marker", pid, cwd ? "cwd" : "root");
            if (access(path, F_OK) == 0) OPEN("%s is the host's", path);
        }
    HELD("none of /proc/PID/root and cwd leads out");
}

static void environment(void) {
    extern char **environ;
    for (char **one = environ; *one; one++)
        if (strstr(*one, SECRET)) OPEN("%s", *one);
    HELD("the caller's variables are not there");
}

static void others_said(void) {
    static char text[1 << 16];
    DIR *proc = opendir("/proc");
    char path[64];
    int pid, own = getpid(), parent = getppid();
    while ((pid = next_pid(proc)))
        for (int cmdline = 0; pid != own && pid != parent && cmdline < 2; cmdline++) {
            snprintf(path, sizeof path, "/proc/%d/%s", pid, cmdline ? "cmdline" : "environ");
            if (slurp(path, text, sizeof text) > 0 && strstr(text, SECRET)) OPEN("%s has it", path);
        }
    HELD("no environ or cmdline has it");
}

static void groups(void) {
    gid_t list[64];
    int count = getgroups(64, list);
    for (int at = 0; at < count; at++)
        if (list[at] == 4 || list[at] == 27) OPEN("group %d is the caller's", list[at]);
    if (count > 0) OPEN("%d groups of the caller, under other numbers", count);
    HELD("no supplementary groups");
}

static void keyring(void) {
    static char text[1 << 16];
    long found = syscall(SYS_keyctl, 10 /* SEARCH */, -3 /* the session's */, "user", KEY, 0);
    int cause = errno;
    if (found >= 0) OPEN("keyctl(2) finds the caller's key");
    if (slurp("/proc/keys", text, sizeof text) > 0 && strstr(text, KEY)) OPEN("/proc/keys lists the caller's key");
    errno = cause;
    HELD("keyctl(2): %s", why());
}

static void signals(void) {
    unsigned long long ignored = hex("SigIgn:"), blocked = hex("SigBlk:");
    if (ignored || blocked) OPEN("ignored %llx, blocked %llx", ignored, blocked);
    HELD("none ignored, none blocked");
}

static void core(void) {
    struct rlimit limit;
    getrlimit(RLIMIT_CORE, &limit);
    if (limit.rlim_cur) OPEN("core files of any size, as the caller may have");
    HELD("RLIMIT_CORE is 0");
}

static void mask(void) {
    int had = umask(0);
    if (had != 022) OPEN("umask %03o is the caller's", had);
    HELD("umask 022");
}

/* ---- the root ---- */

static void twice(void) {
    if (chroot("/tmp/deeper") < 0) HELD("chroot(2): %s", why());
    for (int up = 0; up < 64; up++) if (chdir("..") < 0) break;
    if (chroot(".") == 0 && access("/canary/marker", F_OK) == 0) OPEN("a second chroot(2) leads to the host");
    HELD("chroot(2) works and leads nowhere");
}

static void shipped_node(void) { refused("open(2) of a device node of the root", open("/tmp/null-node", O_WRONLY)); }

static void make_node(void) {
    static const char *const places[] = {"/tmp/made", "/dev/made", NULL}; /* of which one may be read-only */
    for (int at = 0; places[at]; at++)
        if (mknod(places[at], S_IFCHR | 0666, makedev(1, 5)) == 0 && open(places[at], O_RDONLY) >= 0)
            OPEN("%s, made by mknod(2), works", places[at]);
    HELD("mknod(2), or open(2) of it: %s", why());
}

static void dev(void) {
    static const char *good[] = {"null", "zero", "full", "random", "urandom", "tty", "ptmx", "console", NULL};
    DIR *list = opendir("/dev");
    struct dirent *entry;
    struct stat its;
    int nodes = 0;
    while (list && (entry = readdir(list))) {
        int at = 0;
        if (fstatat(dirfd(list), entry->d_name, &its, AT_SYMLINK_NOFOLLOW) < 0 || !(S_ISCHR(its.st_mode) || S_ISBLK(its.st_mode))) continue;
        while (good[at] && strcmp(good[at], entry->d_name)) at++;
        if (!good[at]) OPEN("/dev/%s", entry->d_name);
        nodes++;
    }
    if (!nodes) NONE("there is no device in /dev");
    HELD("%d devices, all of them harmless", nodes);
}

static const char *const TUNABLES[] = {"/proc/sys/kernel/core_pattern", "/proc/sys/vm/drop_caches", "/proc/sys/kernel/modprobe",
    "/proc/sysrq-trigger", "/proc/irq/default_smp_affinity", "/proc/sys/kernel/hostname", NULL};

static const char *writable(const char *const *paths, int *there) {
    *there = 0;
    for (; *paths; paths++) {
        int fd = open(*paths, O_WRONLY | O_APPEND);
        *there += fd >= 0 || errno != ENOENT;
        if (fd >= 0) { close(fd); return *paths; }
    }
    return NULL;
}

static void tunables(void) {
    int there;
    const char *path = writable(TUNABLES, &there);
    if (path) OPEN("%s opens for writing", path);
    if (!there) NONE("none of them is there");
    HELD("none of %d opens for writing", there);
}

static void secrets(void) {
    static const char *const files[] = {"/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats",
        "/proc/sched_debug", NULL}, *const dirs[] = {"/proc/acpi", "/proc/scsi", "/proc/asound", "/sys/firmware", NULL};
    char text[64];
    int there = 0;
    for (int at = 0; files[at]; at++) {
        there += access(files[at], F_OK) == 0;
        if (slurp(files[at], text, sizeof text) > 0) OPEN("%s can be read", files[at]);
    }
    for (int at = 0; dirs[at]; at++) {
        DIR *list = opendir(dirs[at]);
        there += list != NULL;
        for (struct dirent *entry; list && (entry = readdir(list));)
            if (*entry->d_name != '.') OPEN("%s/%s is there", dirs[at], entry->d_name);
    }
    if (!there) NONE("none of them is there");
    HELD("%d of them, all empty", there);
}

static void undo_masks(void) {
    static const char *const masks[] = {"/proc/sys", "/proc/irq", "/proc/bus", "/proc/fs", "/proc/sysrq-trigger", "/proc/keys",
        "/proc/timer_list", "/sys/firmware", "/proc/acpi", "/sys", NULL};
    char text[64];
    int there;
    if (writable(TUNABLES, &there)) NONE("there is nothing to undo");
    for (int round = 0; round < 2; round++) {
        for (int at = 0; masks[at]; at++) {
            mount(NULL, masks[at], NULL, MS_REMOUNT | MS_BIND, NULL);
            umount2(masks[at], MNT_DETACH);
        }
        if (writable(TUNABLES, &there)) OPEN("%s opens for writing%s", writable(TUNABLES, &there), round ? ", in a user namespace" : " after remount and umount");
        if (slurp("/proc/timer_list", text, sizeof text) > 0) OPEN("/proc/timer_list can be read%s", round ? " in a user namespace" : " after an umount");
        if (!round && unshare(CLONE_NEWUSER | CLONE_NEWNS) < 0) HELD("no umount(2), no remount; no user namespace either");
    }
    HELD("no umount(2), no remount; nor in a user namespace");
}

static void sysfs(void) {
    static const char *const paths[] = {"/sys/kernel/uevent_helper", "/sys/power/state", "/sys/kernel/mm/transparent_hugepage/enabled",
        "/sys/kernel/profiling", "/sys/kernel/mm/ksm/run", NULL};
    int there;
    const char *path = writable(paths, &there);
    if (path) OPEN("%s opens for writing", path);
    if (!there) NONE("there is no /sys");
    HELD("none of %d opens for writing", there);
}

static void cgroup_mount(void) {
    for (int round = 0; round < 2; round++) {
        if (mount("c", "/tmp/cgroup", "cgroup", MS_RDONLY, "pids") == 0) {
            umount2("/tmp/cgroup", MNT_DETACH);
            OPEN("a hierarchy of version 1 can be mounted%s", round ? " in a user namespace" : "");
        }
        if (!round && unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWCGROUP) < 0) break;
    }
    HELD("mount(2): %s", why());
}

static void cgroup_write(void) {
    struct statfs its;
    FILE *mounts = fopen("/proc/self/mounts", "r");
    char source[256], place[256], rest[4096];
    int seen = 0;
    while (mounts && fscanf(mounts, "%255s %255s %4095[^\n]", source, place, rest) == 3) {
        if (strncmp(place, "/sys", 4) || statfs(place, &its) < 0 || (its.f_type != CGROUP1 && its.f_type != CGROUP2)) continue;
        seen++;
        if (access(place, W_OK) == 0) OPEN("%s can be written to", place);
    }
    if (!seen) HELD("no control groups in it");
    HELD("%d mounts, none writable", seen);
}

/* ---- rights ---- */

static void inherited_caps(void) {
    unsigned long long inherited = hex("CapInh:"), ambient = hex("CapAmb:");
    if (inherited || ambient) OPEN("inheritable %llx, ambient %llx", inherited, ambient);
    HELD("inheritable and ambient sets are empty");
}

static void bounding(void) {
    static const struct { int number; const char *name; } bad[] = {{21, "SYS_ADMIN"}, {19, "SYS_PTRACE"}, {16, "SYS_MODULE"},
        {17, "SYS_RAWIO"}, {22, "SYS_BOOT"}, {25, "SYS_TIME"}, {27, "MKNOD"}, {13, "NET_RAW"}, {12, "NET_ADMIN"},
        {2, "DAC_READ_SEARCH"}, {18, "SYS_CHROOT"}, {39, "BPF"}, {38, "PERFMON"}, {34, "SYSLOG"}};
    unsigned long long set = hex("CapBnd:");
    char list[256] = "";
    for (size_t at = 0; at < sizeof bad / sizeof *bad; at++)
        if (set >> bad[at].number & 1) snprintf(list + strlen(list), sizeof list - strlen(list), " %s", bad[at].name);
    if (*list) OPEN("bounding set has%s", list);
    HELD("bounding set %llx", set);
}

static void new_privs(void) {
    if (prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1) OPEN("no_new_privs is not set");
    HELD("no_new_privs is set");
}

static int makes_userns(int way) {
    struct { unsigned long long flags, rest[10]; } args = {CLONE_NEWUSER, {0, 0, 0, SIGCHLD}};
    int pid = way == 0 ? (int)syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0)
            : way == 1 ? (int)syscall(SYS_clone3, &args, sizeof args) : unshare(CLONE_NEWUSER) == 0 ? getpid() : -1;
    if (pid == 0) _exit(0);
    return pid;
}

static void nested(void) {
    static const char *const ways[] = {"clone(2)", "clone3(2)", "unshare(2)"};
    for (int way = 0; way < 3; way++)
        if (makes_userns(way) > 0) OPEN("%s makes a user namespace", ways[way]);
    HELD("clone(2), clone3(2), unshare(2): %s", why());
}

/* ---- other processes, the network ---- */

static void host_processes(void) {
    char path[64], comm[64];
    DIR *proc = opendir("/proc");
    int pid, count = 0;
    while ((pid = next_pid(proc))) {
        snprintf(path, sizeof path, "/proc/%d/comm", pid);
        if (slurp(path, comm, sizeof comm) > 0 && !strncmp(comm, COMM, strlen(COMM))) OPEN("process %d is the host's", pid);
        count++;
    }
    HELD("%d processes, none of the host", count);
}

static void abstract(void) {
    struct sockaddr_un name = {AF_UNIX, ""};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    memcpy(name.sun_path, SOCKET_NAME, sizeof SOCKET_NAME - 1);
    refused("connect(2) to an abstract socket of the host", connect(fd, (void *)&name, offsetof(struct sockaddr_un, sun_path) + sizeof SOCKET_NAME - 1));
}

static void loopback(void) {
    struct sockaddr_in name = {AF_INET, htons(port), {htonl(INADDR_LOOPBACK)}, {0}};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    refused("connect(2) to 127.0.0.1 of the host", connect(fd, (void *)&name, sizeof name));
}

static void lo_is_up(void) {
    struct ifreq its = {.ifr_name = "lo"};
    if (ioctl(socket(AF_INET, SOCK_DGRAM, 0), SIOCGIFFLAGS, &its) < 0) OPEN("lo: %s", why());
    if (!(its.ifr_flags & IFF_UP)) OPEN("lo is down");
    HELD("lo is up");
}

static void raw(void) {
    if (socket(AF_PACKET, SOCK_RAW, 0) >= 0) OPEN("a packet socket");
    refused("socket(2) for raw packets", socket(AF_INET, SOCK_RAW, IPPROTO_ICMP));
}

static void rare(void) {
    static const struct { int number; const char *name; } families[] = {{38, "AF_ALG"}, {40, "AF_VSOCK"}, {21, "AF_RDS"},
        {30, "AF_TIPC"}, {31, "AF_BLUETOOTH"}, {29, "AF_CAN"}, {44, "AF_XDP"}, {15, "AF_KEY"}};
    for (size_t at = 0; at < sizeof families / sizeof *families; at++) {
        int kinds[] = {SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET, SOCK_RAW};
        for (int kind = 0; kind < 4; kind++)
            if (socket(families[at].number, kinds[kind], 0) >= 0) OPEN("socket(%s)", families[at].name);
    }
    HELD("none of 8 families: %s", why());
}

/* ---- calls that few need ---- */

static void mount_api(void) {
    if (syscall(SYS_fsopen, "tmpfs", 0) >= 0) OPEN("fsopen(2) works");
    refused("open_tree(2) as a copy", syscall(SYS_open_tree, AT_FDCWD, "/", 1 /* OPEN_TREE_CLONE */));
}
static void uring(void) { struct io_uring_params its = {0}; refused("io_uring_setup(2)", syscall(SYS_io_uring_setup, 1, &its)); }
static void bpf(void) {
    union bpf_attr its = {.map_type = BPF_MAP_TYPE_ARRAY, .key_size = 4, .value_size = 4, .max_entries = 1};
    refused("bpf(2)", syscall(SYS_bpf, BPF_MAP_CREATE, &its, sizeof its));
}
static void faults(void) { refused("userfaultfd(2)", syscall(SYS_userfaultfd, 1 /* UFFD_USER_MODE_ONLY */)); }
static void keys(void) { refused("add_key(2)", syscall(SYS_add_key, "user", "probe", "x", 1, -2 /* the process's */)); }
static void perf(void) {
    struct perf_event_attr its = {.type = PERF_TYPE_SOFTWARE, .size = sizeof its, .config = PERF_COUNT_SW_TASK_CLOCK, .exclude_kernel = 1, .exclude_hv = 1};
    refused("perf_event_open(2)", syscall(SYS_perf_event_open, &its, 0, -1, -1, 0));
}
static void handles(void) {
    struct { struct file_handle head; char rest[128]; } its = {.head = {.handle_bytes = 128}};
    int mount_id, fd;
    if (name_to_handle_at(AT_FDCWD, "/bin", &its.head, &mount_id, 0) < 0) its.head.handle_bytes = 8, its.head.handle_type = 1; /* any */
    fd = open_by_handle_at(open("/", O_RDONLY), &its.head, O_RDONLY);
    if (fd >= 0 || (errno != EPERM && errno != ENOSYS)) OPEN("open_by_handle_at(2): %s", fd < 0 ? why() : "works");
    HELD("open_by_handle_at(2): %s", why());
}

static const struct { const char *name; void (*ask)(void); } QUESTIONS[] = {
    {"descriptors", descriptors}, {"cwd", directory}, {"exe", programs}, {"roots", roots}, {"environ", environment},
    {"proc-environ", others_said}, {"groups", groups}, {"keyring", keyring}, {"signals", signals}, {"core", core}, {"umask", mask},
    {"chroot", twice}, {"node", shipped_node}, {"mknod", make_node}, {"dev", dev}, {"tunables", tunables}, {"secrets", secrets},
    {"sysfs", sysfs}, {"cgroup-mount", cgroup_mount}, {"cgroup-write", cgroup_write}, {"ambient", inherited_caps},
    {"bounding", bounding}, {"no-new-privs", new_privs}, {"userns", nested}, {"processes", host_processes},
    {"abstract", abstract}, {"loopback", loopback}, {"lo", lo_is_up}, {"raw", raw}, {"families", rare}, {"mount-api", mount_api},
    {"io_uring", uring}, {"bpf", bpf}, {"userfaultfd", faults}, {"keys", keys}, {"perf", perf}, {"handles", handles},
    {"undo", undo_masks}, {NULL, NULL}}; /* what changes mounts comes last */

static int ask(char **keys_asked) {
    for (int at = 0; QUESTIONS[at].name; at++) {
        int wanted = 0, status = 0;
        for (char **one = keys_asked; *one; one++) wanted |= !strcmp(*one, QUESTIONS[at].name);
        if (!wanted) continue;
        key = QUESTIONS[at].name;
        int pid = fork();
        if (pid == 0) {
            alarm(10);
            QUESTIONS[at].ask();
            _exit(1);
        }
        while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {}
        if (status) printf("%s\terror\tthe probe ended with status %d\n", key, status), fflush(stdout);
    }
    return 0;
}

/* ---- outside ---- */

static int caller(int privileged, char **argv) {
    gid_t list[] = {4, 27};
    struct rlimit most;
    sigset_t blocked;
    if (dup2(open("/canary", O_RDONLY), 7) < 0 || dup2(open("/canary/marker", O_RDONLY), 8) < 0 || chdir("/canary/dir") < 0) return 125;
    getrlimit(RLIMIT_CORE, &most);
    most.rlim_cur = most.rlim_max;
    if (setrlimit(RLIMIT_CORE, &most) < 0 || (privileged && setgroups(2, list) < 0)) return 125;
    for (int fd = 9; fd < 64; fd++) close(fd);
    for (int fd = 3; fd < 7; fd++) close(fd);
    if (syscall(SYS_keyctl, 1 /* JOIN_SESSION_KEYRING */, NULL) < 0 || syscall(SYS_add_key, "user", KEY, "x", 1, -3) < 0) return 125;
    signal(SIGUSR1, SIG_IGN);
    signal(SIGQUIT, SIG_IGN);
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGUSR2);
    sigprocmask(SIG_BLOCK, &blocked, NULL);
    umask(077);
    setenv("SECRET", SECRET, 1);
    execvp(argv[0], argv);
    return 125;
}

static int serve(void) {
    struct sockaddr_un name = {AF_UNIX, ""};
    struct sockaddr_in address = {AF_INET, 0, {htonl(INADDR_LOOPBACK)}, {0}};
    socklen_t length = sizeof address;
    int local = socket(AF_UNIX, SOCK_STREAM, 0), inet = socket(AF_INET, SOCK_STREAM, 0);
    memcpy(name.sun_path, SOCKET_NAME, sizeof SOCKET_NAME - 1);
    if (bind(local, (void *)&name, offsetof(struct sockaddr_un, sun_path) + sizeof SOCKET_NAME - 1) < 0 || listen(local, 64) < 0) return 1;
    if (bind(inet, (void *)&address, sizeof address) < 0 || listen(inet, 64) < 0 || getsockname(inet, (void *)&address, &length) < 0) return 1;
    prctl(PR_SET_NAME, COMM);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    for (;;) pause();
}

static int watch(int seconds) {
    time_t end = time(NULL) + seconds;
    int seen = 0, own = getpid();
    while (time(NULL) < end) {
        DIR *proc = opendir("/proc");
        for (int pid; (pid = next_pid(proc));) {
            if (pid == own) continue;
            seen++;
            if (overwritable(pid)) { printf("overwritable %s\n", story); return 0; }
        }
        closedir(proc);
    }
    printf("looked %d\n", seen);
    return 0;
}

static int orphans(void) {
    char path[64];
    int zombies = 0, pid;
    for (int at = 0; at < 20; at++)
        if ((pid = fork()) == 0) _exit(fork() < 0);
        else waitpid(pid, NULL, 0); /* its own child, as every program does; who waits for the grandchild? */
    sleep(1);
    DIR *proc = opendir("/proc");
    while ((pid = next_pid(proc))) {
        snprintf(path, sizeof path, "/proc/%d/status", pid);
        char *state = line_of(path, "State:");
        zombies += state && *state == 'Z';
    }
    printf("zombies %d\n", zombies);
    return 0;
}

static int type(void) {
    const char line[] = "typed\n";
    int went = 0, cause = 0;
    for (int high = 0; high < 2; high++)
        for (const char *at = line; *at; at++)
            if (syscall(SYS_ioctl, 0, (unsigned long)high << 32 | TIOCSTI, at) == 0) went++; else cause = errno;
    errno = cause;
    printf("%d went, %s\n", went, cause ? why() : "none refused");
    return 0;
}

static int typed(void) {
    int count = -1;
    ioctl(0, FIONREAD, &count);
    printf("waiting %d\n", count);
    return 0;
}

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "";
    if (!strcmp(what, "ask") && argc > 3) { port = atoi(argv[2]); return ask(argv + 3); }
    if (!strcmp(what, "caller") && argc > 3) return caller(atoi(argv[2]), argv + 3);
    if (!strcmp(what, "serve")) return serve();
    if (!strcmp(what, "watch") && argc > 2) return watch(atoi(argv[2]));
    if (!strcmp(what, "orphans")) return orphans();
    if (!strcmp(what, "euid")) return printf("%d\n", geteuid()) < 0;
    if (!strcmp(what, "type")) return type();
    if (!strcmp(what, "typed")) return typed();
    if (!strcmp(what, "bare") && argc > 3) return chroot(argv[2]) < 0 ? 125 : execv(argv[3], argv + 3);
    fprintf(stderr, "rowprobe: see the top of its source\n");
    return 2;
}

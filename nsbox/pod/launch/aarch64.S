/* nsbox launch for aarch64: the last step into a pod. It becomes the user's command; nothing else.
 *
 * Whoever executes a script of the pod must not be the interpreter that nsbox runs on: a script that
 * begins with "#!/proc/self/exe", or a link to it, would be run by that very program. So nsbox
 * executes this one, from memory and sealed, and this one executes the command. Where the link leads
 * to this program again, it knows that by the report, a descriptor which only nsbox gives to it.
 *
 * Its arguments and environment are the command's own, all of them. What nsbox has to say stands at
 * the end: the orders below, filled in, and behind them the files to try, each ended by a NUL, which
 * are the places of the command in its PATH; an empty one ends the list. Then come the filter of
 * system calls and the limits, if there are any. See nsbox/pod/launch/__init__.py.
 *
 * With CLONE it makes the member first. Then nothing but this program is ever seen in the pod:
 *
 *   nsbox                        launch, outside                  launch, inside
 *                                clone(CLONE_PARENT) ------------> setsid, dies with nsbox,
 *     <------ PID, four bytes --- ends                             takes the terminal
 *     go, one byte ----------------------------------------------> waits for it; end of file: ends
 *     <------ report: "." ---------------------------------------- nsbox is there still
 *     <------ report: end of file, or a step and its errno ------- limits, filter, execve
 *
 * scripts/build-programs makes aarch64.bin of this file. GNU as only: no C, no linker, no libc.
 * The laws. No data and no bss: the orders are only read, and what is written goes on the stack.
 * Numbers: asm-generic/unistd.h, asm-generic/fcntl.h, linux/sched.h, linux/prctl.h,
 * linux/seccomp.h, asm-generic/ioctls.h, asm-generic/errno-base.h.
 */

        .equ    BASE, 0x400000                  // where the file is mapped, whole

        .equ    NR_fcntl, 25
        .equ    NR_ioctl, 29
        .equ    NR_close, 57
        .equ    NR_read, 63
        .equ    NR_write, 64
        .equ    NR_exit_group, 94
        .equ    NR_setsid, 157
        .equ    NR_prctl, 167
        .equ    NR_clone, 220
        .equ    NR_execve, 221
        .equ    NR_prlimit64, 261
        .equ    NR_seccomp, 277

        .equ    CLONE, 1                        // bits of what: see nsbox/pod/launch/__init__.py
        .equ    DIE_WITH_PARENT, 2
        .equ    TERMINAL, 4
        .equ    FILTER, 8

        .equ    AT_CLONE, 1                     // steps in a report
        .equ    AT_TERMINAL, 2
        .equ    AT_FILTER, 3
        .equ    AT_EXECVE, 4
        .equ    AT_LIMITS, 5

        .equ    STDIN, 0
        .equ    STDERR, 2
        .equ    F_SETFD, 2
        .equ    FD_CLOEXEC, 1
        .equ    CLONE_PARENT, 0x8000
        .equ    PR_SET_PDEATHSIG, 1
        .equ    PR_SET_NO_NEW_PRIVS, 38
        .equ    SIGKILL, 9
        .equ    TIOCSCTTY, 0x540e
        .equ    SECCOMP_SET_MODE_FILTER, 1
        .equ    ENOENT, 2
        .equ    EACCES, 13
        .equ    ENOTDIR, 20
        .equ    EXIT_FAILED, 125                // read by nobody: what counts is the report
        .equ    EXIT_CANNOT_INVOKE, 126

        .text
file:
        /* Elf64_Ehdr, see elf(5) */
        .byte   0x7f, 'E', 'L', 'F', 2, 1, 1, 0 // 64 bits, little endian, version 1, System V
        .quad   0                               // padding
        .short  2, 183                          // e_type ET_EXEC, e_machine EM_AARCH64
        .long   1                               // e_version
        .quad   BASE + start - file             // e_entry
        .quad   segments - file                 // e_phoff
        .quad   0                               // e_shoff: no sections
        .long   0                               // e_flags
        .short  64, 56, 2                       // e_ehsize, e_phentsize, e_phnum
        .short  64, 0, 0                        // e_shentsize, e_shnum, e_shstrndx

segments:
        /* Elf64_Phdr: the whole file, readable and executable */
        .long   1, 5                            // PT_LOAD, PF_R | PF_X
        .quad   0, BASE, BASE                   // p_offset, p_vaddr, p_paddr
        .quad   end - file, end - file          // p_filesz, p_memsz: nsbox adds what it appends
        .quad   0x10000                         // p_align: kernels with pages of 64 KiB exist
        /* Elf64_Phdr: the stack is not executable */
        .long   0x6474e551, 6                   // PT_GNU_STACK, PF_R | PF_W
        .quad   0, 0, 0, 0, 0, 16

start:
        ldr     x9, [sp]                        // argc, then argv and its NULL, then envp
        add     x19, sp, 8
        add     x20, x19, x9, lsl 3
        add     x20, x20, 8
        sub     sp, sp, 16                      // room for what is written and read

        /* The command shall not have the report; that it closes tells nsbox of the success. Where
         * there is none, this is no start by nsbox. */
        ldr     w23, what
        ldr     w0, report
        bl      close_on_exec
        cbnz    w0, refuse
        tst     w23, CLONE
        b.eq    command

        ldr     w0, pid_to
        bl      close_on_exec
        ldr     w0, go_from
        bl      close_on_exec
        mov     w24, AT_CLONE
        mov     x0, CLONE_PARENT                // with the exit signal that we have ourselves
        mov     x1, 0                           // on a copy of this stack
        mov     x2, 0
        mov     x3, 0
        mov     x4, 0
        mov     x8, NR_clone
        svc     0
        tbnz    w0, 31, fail
        cbz     w0, member
        str     w0, [sp]
        ldr     w0, pid_to
        mov     x1, sp
        mov     x2, 4
        mov     x8, NR_write
        svc     0
        mov     x0, 0
        b       exit

member:
        ldr     w0, pid_to                      // or nsbox would wait for us to end
        mov     x8, NR_close
        svc     0
        mov     x8, NR_setsid
        svc     0
        tst     w23, DIE_WITH_PARENT
        b.eq    terminal
        mov     x0, PR_SET_PDEATHSIG
        mov     x1, SIGKILL
        mov     x8, NR_prctl
        svc     0
terminal:
        tst     w23, TERMINAL
        b.eq    wait
        mov     w24, AT_TERMINAL
        mov     x0, STDIN
        mov     x1, TIOCSCTTY
        mov     x2, 0
        mov     x8, NR_ioctl
        svc     0
        tbnz    w0, 31, fail
wait:
        ldr     w0, go_from
        mov     x1, sp
        mov     x2, 1
        mov     x8, NR_read
        svc     0
        cmp     w0, 1
        b.ne    leave                           // nsbox has ended, and nobody knows of us
        /* If it ends from here on, we die with it; if it has before we asked for that, of SIGPIPE. */
        mov     w9, '.'
        strb    w9, [sp]
        mov     x2, 1
        bl      tell

command:
        mov     w24, AT_LIMITS
        ldr     x21, limits + 8
        ldr     w22, limits
limit:
        cbz     w22, limited
        mov     x0, 0
        ldr     w1, [x21]
        add     x2, x21, 8
        mov     x3, 0
        mov     x8, NR_prlimit64
        svc     0
        tbnz    w0, 31, fail
        add     x21, x21, 24                    // which, soft, hard
        sub     w22, w22, 1
        b       limit
limited:
        tst     w23, FILTER
        b.eq    search
        mov     w24, AT_FILTER
        bl      set_filter
        cmn     w0, EACCES
        b.ne    filtered
        mov     x0, PR_SET_NO_NEW_PRIVS         // without CAP_SYS_ADMIN that is the condition
        mov     x1, 1
        mov     x2, 0
        mov     x3, 0
        mov     x4, 0
        mov     x8, NR_prctl
        svc     0
        bl      set_filter
filtered:
        tbnz    w0, 31, fail

search:
        mov     w24, AT_EXECVE
        adr     x21, end
        mov     w22, -ENOENT                    // the error that says most so far
try:
        mov     w0, w22
        ldrb    w9, [x21]
        cbz     w9, fail
        mov     x0, x21
        mov     x1, x19
        mov     x2, x20
        mov     x8, NR_execve
        svc     0                               // if it comes back, with an error
        cmn     w0, ENOENT
        b.eq    next
        cmn     w0, ENOTDIR
        b.eq    next
        mov     w22, w0
        cmn     w0, EACCES
        b.ne    fail                            // found, and not to be run: look no further
next:
        ldrb    w9, [x21], 1
        cbnz    w9, next
        b       try

fail:                                           // w24 is the step, w0 what it gave
        neg     w0, w0
        stp     w24, w0, [sp]
        mov     x2, 8
        bl      tell
leave:
        mov     x0, EXIT_FAILED
exit:
        mov     x8, NR_exit_group
        svc     0

refuse:
        mov     x0, STDERR
        adr     x1, refusal
        mov     x2, refusal_end - refusal
        mov     x8, NR_write
        svc     0
        mov     x0, EXIT_CANNOT_INVOKE
        b       exit

close_on_exec:                                  // of descriptor w0
        mov     x1, F_SETFD
        mov     x2, FD_CLOEXEC
        mov     x8, NR_fcntl
        svc     0
        ret

tell:                                           // x2 bytes of what is on the stack
        ldr     w0, report
        mov     x1, sp
        mov     x8, NR_write
        svc     0
        ret

set_filter:
        mov     x0, SECCOMP_SET_MODE_FILTER
        ldr     x1, filter_flags
        adr     x2, filter
        mov     x8, NR_seccomp
        svc     0
        ret

refusal:
        .ascii  "nsbox: cannot run this command: execve: it leads to /proc/self/exe, which is no program of the pod\n"
refusal_end:

        .balign 8
orders:
what:           .long   0                       // CLONE and so on
report:         .long   0                       // descriptors
pid_to:         .long   0
go_from:        .long   0
filter_flags:   .quad   0                       // SECCOMP_FILTER_FLAG_*
filter:         .quad   0, 0                    // struct sock_fprog: number of instructions, where they are
limits:         .quad   0, 0                    // how many, and where they are
end:

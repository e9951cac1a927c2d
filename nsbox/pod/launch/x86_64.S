/* nsbox launch for x86_64: the last step into a pod. It becomes the user's command; nothing else.
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
 * scripts/build-programs makes x86_64.bin of this file. GNU as only: no C, no linker, no libc.
 * The laws. No data and no bss: the orders are only read, and what is written goes on the stack.
 * Numbers: asm/unistd_64.h, asm-generic/fcntl.h, linux/sched.h, linux/prctl.h,
 * linux/seccomp.h, asm-generic/ioctls.h, asm-generic/errno-base.h.
 */
        .intel_syntax noprefix

        .equ    BASE, 0x400000                  # where the file is mapped, whole

        .equ    NR_write, 1
        .equ    NR_close, 3
        .equ    NR_ioctl, 16
        .equ    NR_clone, 56
        .equ    NR_execve, 59
        .equ    NR_fcntl, 72
        .equ    NR_setsid, 112
        .equ    NR_prctl, 157
        .equ    NR_exit_group, 231
        .equ    NR_prlimit64, 302
        .equ    NR_seccomp, 317

        .equ    CLONE, 1                        # bits of what: see nsbox/pod/launch/__init__.py
        .equ    DIE_WITH_PARENT, 2
        .equ    TERMINAL, 4
        .equ    FILTER, 8

        .equ    AT_CLONE, 1                     # steps in a report
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
        .equ    EXIT_FAILED, 125                # read by nobody: what counts is the report
        .equ    EXIT_CANNOT_INVOKE, 126

        .text
file:
        /* Elf64_Ehdr, see elf(5) */
        .byte   0x7f, 'E', 'L', 'F', 2, 1, 1, 0 # 64 bits, little endian, version 1, System V
        .quad   0                               # padding
        .short  2, 62                           # e_type ET_EXEC, e_machine EM_X86_64
        .long   1                               # e_version
        .quad   BASE + start - file             # e_entry
        .quad   segments - file                 # e_phoff
        .quad   0                               # e_shoff: no sections
        .long   0                               # e_flags
        .short  64, 56, 2                       # e_ehsize, e_phentsize, e_phnum
        .short  64, 0, 0                        # e_shentsize, e_shnum, e_shstrndx

segments:
        /* Elf64_Phdr: the whole file, readable and executable */
        .long   1, 5                            # PT_LOAD, PF_R | PF_X
        .quad   0, BASE, BASE                   # p_offset, p_vaddr, p_paddr
        .quad   end - file, end - file          # p_filesz, p_memsz: nsbox adds what it appends
        .quad   0x1000                          # p_align
        /* Elf64_Phdr: the stack is not executable */
        .long   0x6474e551, 6                   # PT_GNU_STACK, PF_R | PF_W
        .quad   0, 0, 0, 0, 0, 16

start:
        mov     rax, [rsp]                      # argc, then argv and its NULL, then envp
        lea     r12, [rsp + 8]
        lea     r13, [r12 + rax * 8 + 8]
        sub     rsp, 16                         # room for what is written and read

        /* The command shall not have the report; that it closes tells nsbox of the success. Where
         * there is none, this is no start by nsbox. */
        mov     edi, [rip + report]
        call    close_on_exec
        test    eax, eax
        jnz     refuse
        test    byte ptr [rip + what], CLONE
        jz      command

        mov     edi, [rip + pid_to]
        call    close_on_exec
        mov     edi, [rip + go_from]
        call    close_on_exec
        mov     r14d, AT_CLONE
        mov     edi, CLONE_PARENT               # with the exit signal that we have ourselves
        xor     esi, esi                        # on a copy of this stack
        xor     edx, edx
        xor     r10d, r10d
        xor     r8d, r8d
        mov     eax, NR_clone
        syscall
        test    eax, eax
        js      fail
        jz      member
        mov     [rsp], eax
        mov     edi, [rip + pid_to]
        mov     rsi, rsp
        mov     edx, 4
        mov     eax, NR_write
        syscall
        xor     edi, edi
        jmp     exit

member:
        mov     edi, [rip + pid_to]             # or nsbox would wait for us to end
        mov     eax, NR_close
        syscall
        mov     eax, NR_setsid
        syscall
        test    byte ptr [rip + what], DIE_WITH_PARENT
        jz      terminal
        mov     edi, PR_SET_PDEATHSIG
        mov     esi, SIGKILL
        mov     eax, NR_prctl
        syscall
terminal:
        test    byte ptr [rip + what], TERMINAL
        jz      wait
        mov     r14d, AT_TERMINAL
        mov     edi, STDIN
        mov     esi, TIOCSCTTY
        xor     edx, edx
        mov     eax, NR_ioctl
        syscall
        test    eax, eax
        js      fail
wait:
        mov     edi, [rip + go_from]
        mov     rsi, rsp
        mov     edx, 1
        xor     eax, eax                        # NR_read
        syscall
        cmp     eax, 1
        jne     leave                           # nsbox has ended, and nobody knows of us
        /* If it ends from here on, we die with it; if it has before we asked for that, of SIGPIPE. */
        mov     byte ptr [rsp], '.'
        mov     edx, 1
        call    tell

command:
        mov     r14d, AT_LIMITS
        mov     rbx, [rip + limits + 8]
        mov     ebp, [rip + limits]
limit:
        test    ebp, ebp
        jz      limited
        xor     edi, edi
        mov     esi, [rbx]
        lea     rdx, [rbx + 8]
        xor     r10d, r10d
        mov     eax, NR_prlimit64
        syscall
        test    eax, eax
        js      fail
        add     rbx, 24                         # which, soft, hard
        dec     ebp
        jmp     limit
limited:
        test    byte ptr [rip + what], FILTER
        jz      search
        mov     r14d, AT_FILTER
        call    set_filter
        cmp     eax, -EACCES
        jne     filtered
        mov     edi, PR_SET_NO_NEW_PRIVS        # without CAP_SYS_ADMIN that is the condition
        mov     esi, 1
        xor     edx, edx
        xor     r10d, r10d
        xor     r8d, r8d
        mov     eax, NR_prctl
        syscall
        call    set_filter
filtered:
        test    eax, eax
        js      fail

search:
        mov     r14d, AT_EXECVE
        lea     rbx, [rip + end]
        mov     ebp, -ENOENT                    # the error that says most so far
try:
        mov     eax, ebp
        cmp     byte ptr [rbx], 0
        je      fail
        mov     rdi, rbx
        mov     rsi, r12
        mov     rdx, r13
        mov     eax, NR_execve
        syscall                                 # if it comes back, with an error
        cmp     eax, -ENOENT
        je      next
        cmp     eax, -ENOTDIR
        je      next
        mov     ebp, eax
        cmp     eax, -EACCES
        jne     fail                            # found, and not to be run: look no further
next:
        inc     rbx
        cmp     byte ptr [rbx - 1], 0
        jne     next
        jmp     try

fail:                                           # r14d is the step, eax what it gave
        neg     eax
        mov     [rsp], r14d
        mov     [rsp + 4], eax
        mov     edx, 8
        call    tell
leave:
        mov     edi, EXIT_FAILED
exit:
        mov     eax, NR_exit_group
        syscall

refuse:
        mov     edi, STDERR
        lea     rsi, [rip + refusal]
        mov     edx, refusal_end - refusal
        mov     eax, NR_write
        syscall
        mov     edi, EXIT_CANNOT_INVOKE
        jmp     exit

close_on_exec:                                  # of descriptor edi
        mov     esi, F_SETFD
        mov     edx, FD_CLOEXEC
        mov     eax, NR_fcntl
        syscall
        ret

tell:                                           # edx bytes of what the caller has on its stack
        mov     edi, [rip + report]
        lea     rsi, [rsp + 8]
        mov     eax, NR_write
        syscall
        ret

set_filter:
        mov     edi, SECCOMP_SET_MODE_FILTER
        mov     esi, [rip + filter_flags]
        lea     rdx, [rip + filter]
        mov     eax, NR_seccomp
        syscall
        ret

refusal:
        .ascii  "nsbox: cannot run this command: execve: it leads to /proc/self/exe, which is no program of the pod\n"
refusal_end:

        .balign 8
orders:
what:           .long   0                       # CLONE and so on
report:         .long   0                       # descriptors
pid_to:         .long   0
go_from:        .long   0
filter_flags:   .quad   0                       # SECCOMP_FILTER_FLAG_*
filter:         .quad   0, 0                    # struct sock_fprog: number of instructions, where they are
limits:         .quad   0, 0                    # how many, and where they are
end:

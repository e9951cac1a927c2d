/* nsbox pause for x86_64: PID 1 of a pod. It holds the namespaces and reaps; nothing else.
 *
 * hold.py beside this file is the same program in Python: read that one first.
 * scripts/build-programs makes x86_64.bin of this file. GNU as only: no C, no linker, no libc.
 *
 * The laws. It opens, reads and writes nothing, so it does not care which descriptors are open.
 * It has no data and no bss, and it uses no stack but what the kernel filled in for it: one page
 * of text and the first pages of the stack are all that it ever holds.
 * Numbers: asm/unistd_64.h, asm-generic/siginfo.h, linux/elf.h, linux/prctl.h.
 */
        .intel_syntax noprefix

        .equ    BASE, 0x400000                  # where the file is mapped, whole

        .equ    NR_rt_sigprocmask, 14
        .equ    NR_wait4, 61
        .equ    NR_rt_sigtimedwait, 128
        .equ    NR_prctl, 157
        .equ    NR_exit_group, 231

        .equ    SIG_BLOCK, 0
        .equ    SIGINT, 2
        .equ    SIGTERM, 15
        .equ    SIGCHLD, 17
        .equ    SIGSET_BYTES, 8                 # the kernel's sigset_t, not the 128 bytes of libc
        .equ    si_code, 8                      # offsets in siginfo_t
        .equ    si_pid, 16
        .equ    WNOHANG, 1
        .equ    PR_SET_NAME, 15

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
        .quad   end - file, end - file          # p_filesz, p_memsz: equal, so there is no bss
        .quad   0x1000                          # p_align
        /* Elf64_Phdr: the stack is not executable */
        .long   0x6474e551, 6                   # PT_GNU_STACK, PF_R | PF_W
        .quad   0, 0, 0, 0, 0, 16

start:
        /* Block every signal. PID 1 gets only signals that it handles or blocks: unblocked, even
         * a SIGTERM of the host would be thrown away. See pid_namespaces(7). */
        mov     edi, SIG_BLOCK
        lea     rsi, [rip + every_signal]
        xor     edx, edx                        # the old mask is not wanted
        mov     r10d, SIGSET_BYTES
        mov     eax, NR_rt_sigprocmask
        syscall

        /* Be called by name in ps: run from a descriptor, its name might be a number. */
        mov     edi, PR_SET_NAME
        lea     rsi, [rip + name]
        mov     eax, NR_prctl
        syscall

        /* Begin with reaping: the SIGCHLD of a child that died before is gone already. */
reap:
        or      rdi, -1                         # any child
        xor     esi, esi                        # its status is not wanted
        mov     edx, WNOHANG
        xor     r10d, r10d                      # nor what it used
        mov     eax, NR_wait4
        syscall
        test    eax, eax
        jg      reap                            # one SIGCHLD may stand for many deaths

wait:
        lea     rdi, [rip + every_signal]       # all: one left pending would fill the queue
        mov     rsi, rsp                        # siginfo_t goes over argc, argv, auxv
        xor     edx, edx                        # no time limit
        mov     r10d, SIGSET_BYTES
        mov     eax, NR_rt_sigtimedwait
        syscall
        cmp     eax, SIGCHLD
        je      reap
        cmp     eax, SIGTERM
        je      stop_if_from_outside
        cmp     eax, SIGINT
        jne     wait                            # another signal, or -EINTR after a SIGCONT

stop_if_from_outside:
        /* A sender that has no PID in this namespace is shown as 0. Below zero in si_code are the
         * signals of which the sender itself wrote si_pid: see rt_sigqueueinfo(2). */
        cmp     dword ptr [rsp + si_code], 0
        jl      wait
        cmp     dword ptr [rsp + si_pid], 0
        jne     wait
        xor     edi, edi
        mov     eax, NR_exit_group
        syscall                                 # the kernel now ends all others in the pod

every_signal:
        .quad   -1
name:
        .asciz  "nsbox:pause"
end:

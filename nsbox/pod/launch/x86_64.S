/* nsbox launch for x86_64: the last step into a pod. It becomes the user's command; nothing else.
 *
 * Whoever executes a script of the pod must not be the interpreter that nsbox runs on: a script that
 * begins with "#!/proc/self/exe", or a link to it, would be run by that very program. So nsbox
 * executes this one, from memory and sealed, and this one executes the command: where the link leads
 * to this program again, it knows that by descriptor 3, which only nsbox gives to it, and refuses.
 *
 * Its arguments and environment are the command's own, all of them. What nsbox has to say stands
 * behind the end of the text, see nsbox/pod/launch/__init__.py:
 *      the files to try, each ended by a NUL: the places of the command in its PATH;
 *      an empty one, which ends the list.
 * Descriptor 3 is the pipe on which a failure is told, as the four bytes of its errno.
 *
 * scripts/build-programs makes x86_64.bin of this file. GNU as only: no C, no linker, no libc.
 * The laws. No data and no bss; nothing is written but four bytes of the stack.
 * Numbers: asm/unistd_64.h, asm-generic/fcntl.h, asm-generic/errno-base.h.
 */
        .intel_syntax noprefix

        .equ    BASE, 0x400000                  # where the file is mapped, whole

        .equ    NR_write, 1
        .equ    NR_execve, 59
        .equ    NR_fcntl, 72
        .equ    NR_exit_group, 231

        .equ    STDERR, 2
        .equ    REPORT, 3
        .equ    F_SETFD, 2
        .equ    FD_CLOEXEC, 1
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

        /* The command shall not have the report; that it closes tells nsbox of the success. Where
         * there is none, this is no start by nsbox. */
        mov     edi, REPORT
        mov     esi, F_SETFD
        mov     edx, FD_CLOEXEC
        mov     eax, NR_fcntl
        syscall
        test    eax, eax
        jnz     refuse

        lea     rbx, [rip + end]
        mov     ebp, ENOENT                     # the error that says most so far
try:
        cmp     byte ptr [rbx], 0
        je      fail
        mov     rdi, rbx
        mov     rsi, r12
        mov     rdx, r13
        mov     eax, NR_execve
        syscall
        neg     eax                             # it came back: with an error
        cmp     eax, ENOENT
        je      next
        cmp     eax, ENOTDIR
        je      next
        mov     ebp, eax
        cmp     eax, EACCES
        jne     fail                            # found, and not to be run: look no further
next:
        inc     rbx
        cmp     byte ptr [rbx - 1], 0
        jne     next
        jmp     try

fail:
        push    rbp
        mov     edi, REPORT
        mov     rsi, rsp
        mov     edx, 4
        mov     eax, NR_write
        syscall
        mov     edi, EXIT_FAILED
        mov     eax, NR_exit_group
        syscall

refuse:
        mov     edi, STDERR
        lea     rsi, [rip + refusal]
        mov     edx, refusal_end - refusal
        mov     eax, NR_write
        syscall
        mov     edi, EXIT_CANNOT_INVOKE
        mov     eax, NR_exit_group
        syscall

refusal:
        .ascii  "nsbox: cannot run this command: execve: it leads to /proc/self/exe, which is no program of the pod\n"
refusal_end:
end:

/* nsbox launch for aarch64: the last step into a pod. It becomes the user's command; nothing else.
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
 * scripts/build-programs makes aarch64.bin of this file. GNU as only: no C, no linker, no libc.
 * The laws. No data and no bss; nothing is written but four bytes of the stack.
 * Numbers: asm-generic/unistd.h, asm-generic/fcntl.h, asm-generic/errno-base.h.
 */
        .equ    BASE, 0x400000                  // where the file is mapped, whole

        .equ    NR_fcntl, 25
        .equ    NR_write, 64
        .equ    NR_exit_group, 94
        .equ    NR_execve, 221

        .equ    STDERR, 2
        .equ    REPORT, 3
        .equ    F_SETFD, 2
        .equ    FD_CLOEXEC, 1
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

        /* The command shall not have the report; that it closes tells nsbox of the success. Where
         * there is none, this is no start by nsbox. */
        mov     x0, REPORT
        mov     x1, F_SETFD
        mov     x2, FD_CLOEXEC
        mov     x8, NR_fcntl
        svc     0
        cbnz    x0, refuse

        adr     x21, end
        mov     w22, ENOENT                     // the error that says most so far
try:
        ldrb    w9, [x21]
        cbz     w9, fail
        mov     x0, x21
        mov     x1, x19
        mov     x2, x20
        mov     x8, NR_execve
        svc     0
        neg     w0, w0                          // it came back: with an error
        cmp     w0, ENOENT
        b.eq    next
        cmp     w0, ENOTDIR
        b.eq    next
        mov     w22, w0
        cmp     w0, EACCES
        b.ne    fail                            // found, and not to be run: look no further
next:
        ldrb    w9, [x21], 1
        cbnz    w9, next
        b       try

fail:
        str     x22, [sp, -16]!
        mov     x0, REPORT
        mov     x1, sp
        mov     x2, 4
        mov     x8, NR_write
        svc     0
        mov     x0, EXIT_FAILED
        mov     x8, NR_exit_group
        svc     0

refuse:
        mov     x0, STDERR
        adr     x1, refusal
        mov     x2, refusal_end - refusal
        mov     x8, NR_write
        svc     0
        mov     x0, EXIT_CANNOT_INVOKE
        mov     x8, NR_exit_group
        svc     0

refusal:
        .ascii  "nsbox: cannot run this command: execve: it leads to /proc/self/exe, which is no program of the pod\n"
refusal_end:
end:

//! What the guest's processor runs: a driver of split rings, in machine code that works at any address.
//!
//! Like [`FastPair`](chainplane_vhost::driver::FastPair) it leaves the same chains in its rings for ever, which devices
//! that use them in order allow. It writes every byte of every frame that it sends and looks at every byte of what it
//! receives. All that it knows it reads from a [mailbox](super::mailbox) whose address is in `rdi`; its stack is ready.

use std::arch::global_asm;

use super::mailbox::{at, port};

/// Where a frame has its sequence number, in bytes from the start of its buffer: behind the headers of virtio-net,
/// Ethernet, IPv4 and UDP, and aligned.
pub const SEQUENCE: usize = 56;

global_asm!(
    r#"
    .pushsection .rodata.chainplane_microguest, "a", @progbits
    .globl chainplane_microguest_start
    .globl chainplane_microguest_end
chainplane_microguest_start:
    cld
.Lround:
    inc qword ptr [rdi + {ROUNDS}]
    cmp qword ptr [rdi + {STOP}], 0
    jne .Lexit
    xor r15d, r15d
    mov r14, [rdi + {PORTS}]
    lea rbx, [rdi + {FIRST_PORT}]
.Lport:
    call .Lreceive
    call .Ltransmit
    add rbx, {PORT_BYTES}
    dec r14
    jnz .Lport
    test r15, r15
    jnz .Lround
    inc qword ptr [rdi + {EMPTY}]
    mov rsi, [rdi + {PENDING}]
    test rsi, rsi
    jz .Lround

    // Nothing to do: wait until the interrupt controller has an interrupt for us, and have it taken away.
.Lwait:
    cmp qword ptr [rdi + {STOP}], 0
    jne .Lexit
    cmp qword ptr [rdi + {WAKE}], 0
    jne .Lwoken
    pause
    mov eax, [rsi]
    test eax, eax
    jz .Lwait
    mov rdx, [rdi + {TAKE}]
    mov [rdx], eax
    jmp .Lround
.Lwoken:
    mov qword ptr [rdi + {WAKE}], 0
    jmp .Lround

.Lexit:
    mov rdx, [rdi + {EXIT}]
    mov [rdx], eax
    jmp .Lexit

    // Looks at up to a burst of received frames of the port at rbx, and posts their buffers again.
.Lreceive:
    mov rsi, [rbx + {RX_USED}]
    movzx eax, word ptr [rsi + 2]
    mov ecx, [rbx + {RX_INDEX}]
    sub eax, ecx
    movzx eax, ax
    test eax, eax
    jz .Lreceived
    mov edx, [rbx + {BURST}]
    cmp eax, edx
    cmova eax, edx
    add r15, rax
    add [rbx + {RECEIVED}], rax
    mov r9d, eax
    mov r13, [rbx + {FRAME_BYTES}]
    mov r12, [rbx + {EXPECTED}]
.Lframe:
    mov edx, ecx
    and edx, [rbx + {MASK}]
    mov r10d, [rsi + rdx * 8 + 4]
    mov r11d, [rsi + rdx * 8 + 8]
    cmp r10d, edx
    jne .Lwrong
    cmp r11, r13
    jne .Lwrong
    imul r10, [rbx + {RX_STRIDE}]
    add r10, [rbx + {RX_BUFFERS}]
    mov rax, [r10 + {SEQUENCE}]
    mov [r12 + {SEQUENCE}], rax
    mov rdx, [rbx + {RX_SEQUENCE}]
    lea r11, [rax + 1]
    mov [rbx + {RX_SEQUENCE}], r11
    cmp rax, rdx
    je .Lcompare
    inc qword ptr [rbx + {GAPS}]
    // The device writes the last bytes of the virtio-net header; what follows it must be as it was sent.
.Lcompare:
    mov eax, [r10 + 12]
    cmp eax, [r12 + 12]
    jne .Lwrong
    mov edx, 16
    lea r8, [r13 - 16]
.Lcompare16:
    movdqu xmm0, [r10 + rdx]
    movdqu xmm1, [r12 + rdx]
    pcmpeqb xmm0, xmm1
    pmovmskb eax, xmm0
    cmp eax, 0xffff
    jne .Lwrong
    cmp rdx, r8
    je .Lgood
    add rdx, 16
    cmp rdx, r8
    cmova rdx, r8
    jmp .Lcompare16
.Lwrong:
    inc qword ptr [rbx + {ERRORS}]
.Lgood:
    inc ecx
    dec r9d
    jnz .Lframe
    movzx ecx, cx
    mov r8d, [rbx + {RX_INDEX}]
    mov [rbx + {RX_INDEX}], ecx
    // Every buffer is in the ring but those that were just looked at: the available index is a ring ahead.
    mov eax, [rbx + {MASK}]
    lea ecx, [ecx + eax + 1]
    lea r8d, [r8d + eax + 1]
    mov rdx, [rbx + {RX_AVAIL}]
    mov r10, [rbx + {RX_KICK}]
    call .Lpublish
.Lreceived:
    mov rdx, [rbx + {RX_AVAIL}]
    mov ecx, [rbx + {RX_INDEX}]
    jmp .Lwish

    // Writes up to a burst of frames of the port at rbx, as many as are to be sent, the ring has room for and may be
    // under way.
.Ltransmit:
    mov rsi, [rbx + {TX_USED}]
    movzx r11d, word ptr [rsi + 2]
    mov ecx, [rbx + {TX_INDEX}]
    mov edx, ecx
    sub edx, r11d
    movzx edx, dx
    mov eax, [rbx + {MASK}]
    inc eax
    sub eax, edx
    jle .Ltransmitted
    mov edx, [rbx + {BURST}]
    cmp eax, edx
    cmova eax, edx
    cmp rax, [rbx + {TO_SEND}]
    cmova rax, [rbx + {TO_SEND}]
    mov rdx, [rbx + {WINDOW}]
    add rdx, [rbx + {RECEIVED}]
    sub rdx, [rbx + {SENT}]
    cmp rax, rdx
    cmovg rax, rdx
    test rax, rax
    jle .Ltransmitted
    sub [rbx + {TO_SEND}], rax
    add [rbx + {SENT}], rax
    add r15, rax
    mov r9d, eax
    mov r8d, ecx
    mov r13, [rbx + {FRAME_BYTES}]
    sub r13, 16
    mov r12, [rbx + {FRAME}]
.Lsend:
    mov edx, ecx
    and edx, [rbx + {MASK}]
    imul rdx, [rbx + {TX_STRIDE}]
    add rdx, [rbx + {TX_BUFFERS}]
    xor eax, eax
.Lcopy16:
    movdqu xmm0, [r12 + rax]
    movdqu [rdx + rax], xmm0
    cmp rax, r13
    je .Lcopied
    add rax, 16
    cmp rax, r13
    cmova rax, r13
    jmp .Lcopy16
.Lcopied:
    mov rax, [rbx + {TX_SEQUENCE}]
    mov [rdx + {SEQUENCE}], rax
    inc qword ptr [rbx + {TX_SEQUENCE}]
    inc ecx
    dec r9d
    jnz .Lsend
    movzx ecx, cx
    mov [rbx + {TX_INDEX}], ecx
    mov rdx, [rbx + {TX_AVAIL}]
    mov r10, [rbx + {TX_KICK}]
    call .Lpublish
.Ltransmitted:
    mov rsi, [rbx + {TX_USED}]
    movzx ecx, word ptr [rsi + 2]
    mov rdx, [rbx + {TX_AVAIL}]
    jmp .Lwish

    // Moves the available index of the ring at rdx from r8 to ecx, and kicks at r10 if the used ring at rsi says so.
.Lpublish:
    mov [rdx + 2], cx
    mfence
    cmp qword ptr [rbx + {EVENT_INDEX}], 0
    jne .Lby_index
    test word ptr [rsi], 1
    jnz .Lquiet
    jmp .Lkick
.Lby_index:
    mov eax, [rbx + {MASK}]
    movzx eax, word ptr [rsi + rax * 8 + 12]
    mov r9d, ecx
    sub r9d, eax
    dec r9d
    movzx r9d, r9w
    mov eax, ecx
    sub eax, r8d
    movzx eax, ax
    cmp r9d, eax
    jae .Lquiet
.Lkick:
    inc qword ptr [rbx + {KICKS}]
    mov dword ptr [r10], 1
.Lquiet:
    ret

    // Asks the device, by the ring at rdx, for an interrupt when it uses more than ecx says; where interrupts are
    // wanted and wishes go by index.
.Lwish:
    cmp qword ptr [rbx + {EVENT_INDEX}], 0
    je .Lquiet
    cmp qword ptr [rdi + {PENDING}], 0
    je .Lquiet
    mov eax, [rbx + {MASK}]
    mov [rdx + rax * 2 + 6], cx
    mfence
    ret
chainplane_microguest_end:
    .popsection
    "#,
    ROUNDS = const at::ROUNDS,
    STOP = const at::STOP,
    PORTS = const at::PORTS,
    FIRST_PORT = const at::FIRST_PORT,
    PORT_BYTES = const port::BYTES,
    EMPTY = const at::EMPTY,
    PENDING = const at::PENDING,
    TAKE = const at::TAKE,
    WAKE = const at::WAKE,
    EXIT = const at::EXIT,
    RX_AVAIL = const port::RX_AVAIL,
    RX_USED = const port::RX_USED,
    RX_BUFFERS = const port::RX_BUFFERS,
    RX_STRIDE = const port::RX_STRIDE,
    RX_KICK = const port::RX_KICK,
    RX_INDEX = const port::RX_INDEX,
    RX_SEQUENCE = const port::RX_SEQUENCE,
    TX_AVAIL = const port::TX_AVAIL,
    TX_USED = const port::TX_USED,
    TX_BUFFERS = const port::TX_BUFFERS,
    TX_STRIDE = const port::TX_STRIDE,
    TX_KICK = const port::TX_KICK,
    TX_INDEX = const port::TX_INDEX,
    TX_SEQUENCE = const port::TX_SEQUENCE,
    MASK = const port::MASK,
    BURST = const port::BURST,
    EVENT_INDEX = const port::EVENT_INDEX,
    FRAME = const port::FRAME,
    EXPECTED = const port::EXPECTED,
    FRAME_BYTES = const port::FRAME_BYTES,
    TO_SEND = const port::TO_SEND,
    WINDOW = const port::WINDOW,
    SENT = const port::SENT,
    RECEIVED = const port::RECEIVED,
    ERRORS = const port::ERRORS,
    GAPS = const port::GAPS,
    KICKS = const port::KICKS,
    SEQUENCE = const SEQUENCE,
);

unsafe extern "C" {
    static chainplane_microguest_start: u8;
    static chainplane_microguest_end: u8;
}

/// The machine code.
pub fn code() -> &'static [u8] {
    // SAFETY: both symbols are in one section, in this order, with the program between them; it is read-only.
    unsafe {
        let (start, end) = (
            &raw const chainplane_microguest_start,
            &raw const chainplane_microguest_end,
        );
        std::slice::from_raw_parts(start, end.offset_from_unsigned(start))
    }
}

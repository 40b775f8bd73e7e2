//! Copies between host memory and guest memory.
//!
//! A guest may change its memory while we read it, so no Rust reference and no ordinary load may
//! touch it: the compiler would be free to read twice and to believe that both reads agree. On
//! x86-64 every access here is an instruction the compiler can't see into; elsewhere it is a
//! volatile one. Small lengths are copied in place with overlapping 16-byte moves, since a call
//! into the C library costs as much as the copy itself; long ones use the widest moves there are.

/// Lengths up to this are copied by inlined code.
const INLINE: usize = 128;

#[cfg(target_arch = "x86_64")]
mod moves {
    use core::arch::asm;
    use core::arch::x86_64::__m128i;

    /// # Safety
    /// 16 bytes at `p` are readable.
    #[inline(always)]
    pub unsafe fn load16(p: *const u8) -> __m128i {
        let value: __m128i;
        // SAFETY: the caller promises 16 readable bytes; the move needs no alignment.
        unsafe {
            asm!("movdqu {v}, [{p}]", v = out(xmm_reg) value, p = in(reg) p,
                 options(nostack, preserves_flags, readonly));
        }
        value
    }

    /// # Safety
    /// 16 bytes at `p` are writable.
    #[inline(always)]
    pub unsafe fn store16(p: *mut u8, value: __m128i) {
        // SAFETY: the caller promises 16 writable bytes; the move needs no alignment.
        unsafe {
            asm!("movdqu [{p}], {v}", v = in(xmm_reg) value, p = in(reg) p,
                 options(nostack, preserves_flags));
        }
    }

    /// Copies 64 bytes.
    ///
    /// # Safety
    /// 64 bytes at `src` are readable, and as many at `dst` are writable.
    #[inline(always)]
    pub unsafe fn copy64(src: *const u8, dst: *mut u8) {
        // SAFETY: the caller promises the bytes; the moves need no alignment.
        unsafe {
            asm!(
                "movdqu {a}, [{s}]",
                "movdqu {b}, [{s} + 16]",
                "movdqu {c}, [{s} + 32]",
                "movdqu {e}, [{s} + 48]",
                "movdqu [{d}], {a}",
                "movdqu [{d} + 16], {b}",
                "movdqu [{d} + 32], {c}",
                "movdqu [{d} + 48], {e}",
                s = in(reg) src, d = in(reg) dst,
                a = out(xmm_reg) _, b = out(xmm_reg) _, c = out(xmm_reg) _, e = out(xmm_reg) _,
                options(nostack, preserves_flags)
            );
        }
    }

    macro_rules! scalar {
        ($load:ident, $store:ident, $type:ty, $register:ident, $in:literal, $out:literal) => {
            /// # Safety
            /// As many bytes as the type has are readable at `p`.
            #[inline(always)]
            pub unsafe fn $load(p: *const u8) -> $type {
                let value: $type;
                // SAFETY: the caller promises the bytes; the move needs no alignment.
                unsafe {
                    asm!($in, v = out($register) value, p = in(reg) p,
                         options(nostack, preserves_flags, readonly));
                }
                value
            }

            /// # Safety
            /// As many bytes as the type has are writable at `p`.
            #[inline(always)]
            pub unsafe fn $store(p: *mut u8, value: $type) {
                // SAFETY: the caller promises the bytes; the move needs no alignment.
                unsafe {
                    asm!($out, v = in($register) value, p = in(reg) p,
                         options(nostack, preserves_flags));
                }
            }
        };
    }
    scalar!(load8, store8, u64, reg, "mov {v}, [{p}]", "mov [{p}], {v}");
    scalar!(
        load4,
        store4,
        u32,
        reg,
        "mov {v:e}, [{p}]",
        "mov [{p}], {v:e}"
    );
    scalar!(
        load1,
        store1,
        u8,
        reg_byte,
        "mov {v}, [{p}]",
        "mov [{p}], {v}"
    );

    /// # Safety
    /// `src` is readable and `dst` writable for `len` bytes, `len` is at least 64, and they do not
    /// overlap.
    #[target_feature(enable = "avx")]
    unsafe fn long_avx(src: *const u8, dst: *mut u8, len: usize) {
        // SAFETY: every move stays within `len` bytes of both sides: the loop ends at most 63
        // bytes before the end, and the last two moves count back from the end.
        unsafe {
            asm!(
                "2:",
                "vmovdqu {a}, [{s} + {i}]",
                "vmovdqu {b}, [{s} + {i} + 32]",
                "vmovdqu [{d} + {i}], {a}",
                "vmovdqu [{d} + {i} + 32], {b}",
                "add {i}, 64",
                "cmp {i}, {stop}",
                "jbe 2b",
                "vmovdqu {a}, [{s} + {len} - 64]",
                "vmovdqu {b}, [{s} + {len} - 32]",
                "vmovdqu [{d} + {len} - 64], {a}",
                "vmovdqu [{d} + {len} - 32], {b}",
                "vzeroupper",
                s = in(reg) src, d = in(reg) dst, len = in(reg) len,
                stop = in(reg) len - 64, i = inout(reg) 0usize => _,
                a = out(ymm_reg) _, b = out(ymm_reg) _,
                options(nostack)
            );
        }
    }

    /// # Safety
    /// `src` is readable and `dst` writable for `len` bytes, `len` is at least 64, and they do not
    /// overlap.
    #[inline(never)]
    pub unsafe fn long(src: *const u8, dst: *mut u8, len: usize) {
        if std::arch::is_x86_feature_detected!("avx") {
            // SAFETY: AVX was found; the rest is the caller's promise.
            unsafe { long_avx(src, dst, len) }
        } else {
            // SAFETY: `rep movsb` copies exactly `len` bytes forwards; the caller promises them.
            unsafe {
                asm!("rep movsb", inout("rcx") len => _, inout("rsi") src => _,
                     inout("rdi") dst => _, options(nostack, preserves_flags));
            }
        }
    }

    #[inline(always)]
    pub fn prefetch_read(p: *const u8) {
        // SAFETY: a prefetch never faults, whatever the address.
        unsafe {
            asm!("prefetcht0 [{p}]", p = in(reg) p.addr(), options(nostack, preserves_flags, nomem));
        }
    }

    /// The lines of `len` bytes, and up to three behind them.
    #[inline(always)]
    pub fn prefetch_write_run(p: *const u8, len: usize) {
        for at in (0..len).step_by(256) {
            // SAFETY: a prefetch never faults, whatever the address.
            unsafe {
                asm!("prefetchw [{p}]", "prefetchw [{p} + 64]", "prefetchw [{p} + 128]", "prefetchw [{p} + 192]",
                     p = in(reg) p.addr().wrapping_add(at), options(nostack, preserves_flags, nomem));
            }
        }
    }

    #[inline(always)]
    pub fn prefetch_write(p: *const u8) {
        // SAFETY: a prefetch never faults, whatever the address.
        unsafe {
            asm!("prefetchw [{p}]", p = in(reg) p.addr(), options(nostack, preserves_flags, nomem));
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod moves {
    macro_rules! scalar {
        ($load:ident, $store:ident, $type:ty) => {
            /// # Safety
            /// As many bytes as the type has are readable at `p`.
            #[inline(always)]
            pub unsafe fn $load(p: *const u8) -> $type {
                let mut bytes = [0u8; size_of::<$type>()];
                for (i, byte) in bytes.iter_mut().enumerate() {
                    // SAFETY: within the bytes that the caller promises.
                    *byte = unsafe { p.add(i).read_volatile() };
                }
                <$type>::from_ne_bytes(bytes)
            }

            /// # Safety
            /// As many bytes as the type has are writable at `p`.
            #[inline(always)]
            pub unsafe fn $store(p: *mut u8, value: $type) {
                for (i, byte) in value.to_ne_bytes().into_iter().enumerate() {
                    // SAFETY: within the bytes that the caller promises.
                    unsafe { p.add(i).write_volatile(byte) };
                }
            }
        };
    }
    scalar!(load16, store16, u128);
    scalar!(load8, store8, u64);
    scalar!(load4, store4, u32);
    scalar!(load1, store1, u8);

    /// Copies 64 bytes.
    ///
    /// # Safety
    /// 64 bytes at `src` are readable, and as many at `dst` are writable.
    pub unsafe fn copy64(src: *const u8, dst: *mut u8) {
        for at in [0, 16, 32, 48] {
            // SAFETY: within the bytes that the caller promises.
            unsafe { store16(dst.add(at), load16(src.add(at))) };
        }
    }

    /// # Safety
    /// `src` is readable and `dst` writable for `len` bytes, and they do not overlap.
    pub unsafe fn long(src: *const u8, dst: *mut u8, len: usize) {
        let mut at = 0;
        while at + 8 <= len {
            // SAFETY: `at + 8` is within `len`.
            unsafe {
                dst.add(at)
                    .cast::<u64>()
                    .write_unaligned(load8(src.add(at)))
            };
            at += 8;
        }
        while at < len {
            // SAFETY: `at` is within `len`.
            unsafe { store1(dst.add(at), load1(src.add(at))) };
            at += 1;
        }
    }

    pub fn prefetch_read(_: *const u8) {}
    pub fn prefetch_write(_: *const u8) {}
    pub fn prefetch_write_run(_: *const u8, _: usize) {}
}

pub(crate) use moves::{
    load4, load8, prefetch_read, prefetch_write, prefetch_write_run, store4, store8,
};

/// Copies `len` bytes from `src` to `dst`, either of which may be guest memory.
///
/// # Safety
/// `src` is readable and `dst` is writable for `len` bytes. They may overlap only where both are
/// guest memory (a guest that aliases its own regions); what is copied is then unspecified.
#[inline(always)]
pub(crate) unsafe fn copy(src: *const u8, dst: *mut u8, len: usize) {
    use moves::{copy64, load1, load16, long, store1, store16};
    if len > INLINE {
        // SAFETY: the caller's promise; `len` is at least 64.
        return unsafe { long(src, dst, len) };
    }
    // SAFETY: in each branch `len` is at least the width of a move, so the moves from the front
    // and those from the back all lie within `len` bytes of both sides.
    unsafe {
        if len >= 64 {
            copy64(src, dst);
            if len > 64 {
                copy64(src.add(len - 64), dst.add(len - 64));
            }
        } else if len >= 32 {
            let (a, b) = (load16(src), load16(src.add(16)));
            let (c, d) = (load16(src.add(len - 32)), load16(src.add(len - 16)));
            store16(dst, a);
            store16(dst.add(16), b);
            store16(dst.add(len - 32), c);
            store16(dst.add(len - 16), d);
        } else if len >= 16 {
            let (a, b) = (load16(src), load16(src.add(len - 16)));
            store16(dst, a);
            store16(dst.add(len - 16), b);
        } else if len >= 8 {
            let (a, b) = (load8(src), load8(src.add(len - 8)));
            store8(dst, a);
            store8(dst.add(len - 8), b);
        } else if len >= 4 {
            let (a, b) = (load4(src), load4(src.add(len - 4)));
            store4(dst, a);
            store4(dst.add(len - 4), b);
        } else {
            for at in 0..len {
                store1(dst.add(at), load1(src.add(at)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_length_arrives_and_nothing_beyond_it_changes() {
        let source: Vec<u8> = (0..2200u32).map(|i| (i * 7 + 3) as u8).collect();
        for len in (0..700).chain([1023, 1024, 1500, 1518, 2048, 2100]) {
            for shift in [0, 1, 13] {
                let mut target = vec![0xEEu8; 2300];
                // SAFETY: both vectors are longer than `shift + len`.
                unsafe { super::copy(source.as_ptr().add(shift), target.as_mut_ptr().add(9), len) };
                assert_eq!(target[9..9 + len], source[shift..shift + len]);
                assert!(
                    target[..9]
                        .iter()
                        .chain(&target[9 + len..])
                        .all(|b| *b == 0xEE),
                    "{len}"
                );
            }
        }
    }
}

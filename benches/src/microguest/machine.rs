//! A virtual machine with one processor, in 64-bit user mode from its first instruction: no firmware, no kernel, no
//! interrupt handlers.

use std::io;

use chainplane_vhost::event::Event;
use chainplane_vhost::memory::Mapping;
use kvm_bindings::{
    KVM_IRQ_ROUTING_MSI, KVM_MAX_CPUID_ENTRIES, KvmIrqRouting, kvm_irq_routing_entry,
    kvm_irq_routing_entry__bindgen_ty_1, kvm_irq_routing_msi, kvm_lapic_state, kvm_regs,
    kvm_segment, kvm_userspace_memory_region,
};
use kvm_ioctls::{IoEventAddress, Kvm, NoDatamatch, VcpuExit, VcpuFd, VmFd};

/// Where the guest sees its interrupt controller.
pub const APIC: u64 = 0xfee0_0000;
/// Interrupt vectors start here, so that all of them are bits of one word of the controller.
const FIRST_VECTOR: u32 = 64;
/// The controller's register of that word: interrupts that came and were not delivered.
pub const REQUESTS: u64 = 0x220;
/// The controller's register that switches it on, with that bit and the vector of spurious interrupts.
const SPURIOUS: (usize, u32) = (0xf0, 0x1ff);

/// Address of the level-4 page table, of the first instruction, of the stack's end, and what `rdi` holds at first.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Page table.
    pub tables: u64,
    /// Instruction.
    pub code: u64,
    /// Stack.
    pub stack: u64,
    /// Argument.
    pub argument: u64,
}

/// Why the processor came back to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// It wrote to an address where nothing is.
    Write(u64),
    /// A signal came.
    Interrupted,
}

/// The machine.
pub struct Machine {
    vm: VmFd,
    processor: VcpuFd,
    regions: u32,
    routes: Vec<kvm_irq_routing_entry>,
}

fn failed(what: &str) -> impl FnOnce(kvm_ioctls::Error) -> io::Error {
    move |error| io::Error::other(format!("KVM: {what}: {error}"))
}

impl Machine {
    /// An empty one.
    ///
    /// # Errors
    /// What KVM refuses.
    pub fn new() -> io::Result<Self> {
        let kvm = Kvm::new().map_err(failed("opening /dev/kvm"))?;
        let vm = kvm.create_vm().map_err(failed("a machine"))?;
        vm.create_irq_chip()
            .map_err(failed("interrupt controllers"))?;
        let processor = vm.create_vcpu(0).map_err(failed("a processor"))?;
        let features = kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .map_err(failed("the processor's features"))?;
        processor
            .set_cpuid2(&features)
            .map_err(failed("the processor's features"))?;
        Ok(Self {
            vm,
            processor,
            regions: 0,
            routes: Vec::new(),
        })
    }

    /// Gives `memory` to the guest at an address. The machine must go before the memory does.
    ///
    /// # Errors
    /// What KVM refuses.
    pub fn add_memory(&mut self, guest_address: u64, memory: &Mapping) -> io::Result<()> {
        let region = kvm_userspace_memory_region {
            slot: self.regions,
            flags: 0,
            guest_phys_addr: guest_address,
            memory_size: memory.len() as u64,
            userspace_addr: memory.address(),
        };
        self.regions += 1;
        // SAFETY: the region is the whole of a mapping that its owner keeps for longer than this machine, and that is
        // shared memory which others change at will anyway: no reference into it exists.
        unsafe { self.vm.set_user_memory_region(region) }.map_err(failed("memory"))
    }

    /// Signals `kick` when the guest writes to an address, without the guest being left.
    ///
    /// # Errors
    /// What KVM refuses.
    pub fn add_doorbell(&self, address: u64, kick: &Event) -> io::Result<()> {
        let address = IoEventAddress::Mmio(address);
        self.vm
            .register_ioevent(&kick.share()?, &address, NoDatamatch)
            .map_err(failed("an ioeventfd"))
    }

    /// Interrupts the guest when `call` is signalled, each by a vector of its own.
    ///
    /// # Errors
    /// What KVM refuses.
    pub fn add_interrupt(&mut self, call: &Event) -> io::Result<()> {
        let number = self.routes.len() as u32;
        let msi = kvm_irq_routing_msi {
            address_lo: APIC as u32,
            data: FIRST_VECTOR + number,
            ..kvm_irq_routing_msi::default()
        };
        self.routes.push(kvm_irq_routing_entry {
            gsi: number,
            type_: KVM_IRQ_ROUTING_MSI,
            u: kvm_irq_routing_entry__bindgen_ty_1 { msi },
            ..kvm_irq_routing_entry::default()
        });
        let routing = KvmIrqRouting::from_entries(&self.routes)
            .map_err(|error| io::Error::other(format!("too many interrupts: {error:?}")))?;
        self.vm
            .set_gsi_routing(&routing)
            .map_err(failed("interrupt routes"))?;
        self.vm
            .register_irqfd(&call.share()?, number)
            .map_err(failed("an irqfd"))
    }

    /// Prepares the processor to start at `entry`.
    ///
    /// # Errors
    /// What KVM refuses.
    pub fn enter_at(&mut self, entry: Entry) -> io::Result<()> {
        let failed = || failed("the processor's state");
        let mut special = self.processor.get_sregs().map_err(failed())?;
        // User mode (descriptor privilege level 3), as everything else is emulated step by step on hosts whose
        // hypervisor is a guest itself.
        let segment = kvm_segment {
            limit: 0xffff_ffff,
            present: 1,
            dpl: 3,
            s: 1,
            g: 1,
            ..kvm_segment::default()
        };
        special.cs = kvm_segment {
            selector: 0x33,
            type_: 11,
            l: 1,
            ..segment
        };
        let data = kvm_segment {
            selector: 0x2b,
            type_: 3,
            db: 1,
            ..segment
        };
        (special.ss, special.ds, special.es) = (data, data, data);
        (special.fs, special.gs) = (data, data);
        special.cr0 = 0x8005_0033;
        special.cr3 = entry.tables;
        special.cr4 = 0x620;
        special.efer = 0xd00;
        self.processor.set_sregs(&special).map_err(failed())?;
        let registers = kvm_regs {
            rip: entry.code,
            rsp: entry.stack,
            rdi: entry.argument,
            // I/O privilege level 3, interrupts off.
            rflags: 0x3002,
            ..kvm_regs::default()
        };
        self.processor.set_regs(&registers).map_err(failed())?;
        let mut apic = self.processor.get_lapic().map_err(failed())?;
        set_register(&mut apic, SPURIOUS.0, SPURIOUS.1);
        self.processor.set_lapic(&apic).map_err(failed())
    }

    /// Runs the guest until it needs us.
    ///
    /// # Errors
    /// What it did that it never should.
    pub fn run(&mut self) -> io::Result<Left> {
        let left = match self.processor.run() {
            Ok(VcpuExit::MmioWrite(address, _)) => return Ok(Left::Write(address)),
            Ok(VcpuExit::Intr) => return Ok(Left::Interrupted),
            Err(error) if error.errno() == rustix::io::Errno::INTR.raw_os_error() => {
                return Ok(Left::Interrupted);
            }
            Ok(other) => format!("{other:?}"),
            Err(error) => error.to_string(),
        };
        let at = self.processor.get_regs().map_or(0, |state| state.rip);
        Err(io::Error::other(format!(
            "the guest ended at {at:#x}: {left}"
        )))
    }

    /// Takes the interrupts that came away from the controller; bit `n` is the `n`th that was added.
    ///
    /// # Errors
    /// What KVM refuses.
    pub fn take_interrupts(&mut self) -> io::Result<u32> {
        let mut apic = self
            .processor
            .get_lapic()
            .map_err(failed("the interrupt controller"))?;
        let came = register(&apic, REQUESTS as usize);
        if came != 0 {
            set_register(&mut apic, REQUESTS as usize, 0);
            self.processor
                .set_lapic(&apic)
                .map_err(failed("the interrupt controller"))?;
        }
        Ok(came)
    }
}

fn register(apic: &kvm_lapic_state, at: usize) -> u32 {
    let byte = |i: usize| apic.regs[at + i].cast_unsigned();
    u32::from_le_bytes([byte(0), byte(1), byte(2), byte(3)])
}

fn set_register(apic: &mut kvm_lapic_state, at: usize, value: u32) {
    for (place, byte) in apic.regs[at..].iter_mut().zip(value.to_le_bytes()) {
        *place = byte.cast_signed();
    }
}

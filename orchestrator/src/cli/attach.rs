//! `chainplane attach`: what a hypervisor needs to be told.

use std::env;
use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use chainplane_dataplane::packet::Mac;

use super::{fail, open, print};
use crate::diagnostic::suggestion;
use crate::spec::Model;
use crate::spec::file::{Port, Role, VhostUser};

/// Prints the settings that attach a machine to `port` of `file`.
pub fn run(file: &Path, port: &str) -> Result<ExitCode, ExitCode> {
    let checked = open(file)?;
    let text = settings(&checked.model, port).map_err(|message| fail(&message))?;
    print(&text)
}

/// The settings, or why there are none.
fn settings(model: &Model, name: &str) -> Result<String, String> {
    let Some(port) = model.port(name) else {
        let kinds = |p: &&crate::spec::model::NamedPort| matches!(p.config, Port::VhostUser(_));
        let names: Vec<_> = model.ports.iter().filter(kinds).collect();
        let help = suggestion(name, names.iter().map(|port| port.name.as_str()));
        return Err(format!("no port `{name}`; {help}"));
    };
    let Port::VhostUser(config) = &port.config else {
        let kind = port.config.kind();
        return Err(format!(
            "`{name}` is a port of kind {kind}; a machine attaches to vhost-user ports"
        ));
    };
    let machine = Machine::new(name, config);
    Ok(format!(
        "{}\n{}\n{}",
        machine.qemu(),
        machine.libvirt(),
        machine.cloud_hypervisor()
    ))
}

/// One port, seen from the machine.
struct Machine<'p> {
    config: &'p VhostUser,
    /// A name that every hypervisor takes.
    id: String,
    /// The socket's path, complete.
    socket: String,
    mac: Mac,
    /// Whether the machine's side makes the socket.
    listens: bool,
}

impl<'p> Machine<'p> {
    fn new(name: &str, config: &'p VhostUser) -> Self {
        let here = env::current_dir().unwrap_or_default();
        Self {
            config,
            id: name.replace('.', "-"),
            socket: here.join(&config.socket).display().to_string(),
            mac: config.mac(name),
            listens: config.role == Role::Client,
        }
    }

    fn qemu(&self) -> String {
        let Self {
            id,
            socket,
            mac,
            config,
            ..
        } = self;
        let socket = socket.replace(',', ",,");
        let server = if self.listens {
            ",server=on,wait=off"
        } else {
            ",reconnect=1"
        };
        let queues = config.queues;
        let multi = if queues > 1 {
            format!(",mq=on,vectors={}", 2 * u32::from(queues) + 2)
        } else {
            String::new()
        };
        let mtu = config
            .mtu
            .map_or_else(String::new, |mtu| format!(",host_mtu={mtu}"));
        let lines = [
            "# QEMU: the machine's memory must be shared; its size is yours to choose".to_owned(),
            "  -object memory-backend-memfd,id=mem,size=1G,share=on -m 1G".into(),
            "  -machine q35,memory-backend=mem".into(),
            format!(
                "  -chardev socket,id=chr-{id},path={}{server}",
                quote(&socket)
            ),
            format!("  -netdev vhost-user,id=net-{id},chardev=chr-{id},queues={queues}"),
            format!("  -device virtio-net-pci,netdev=net-{id},mac={mac}{multi}{mtu}"),
        ];
        lines.join(" \\\n").replacen(" \\\n", "\n", 1) + "\n"
    }

    fn libvirt(&self) -> String {
        let Self { mac, config, .. } = self;
        let socket = xml(&self.socket);
        let mut out = String::from(
            "# libvirt: in <domain>\n  <memoryBacking>\n    <source type='memfd'/>\n    \
             <access mode='shared'/>\n  </memoryBacking>\n# and in <devices>\n  \
             <interface type='vhostuser'>\n",
        );
        let _ = writeln!(out, "    <mac address='{mac}'/>");
        if self.listens {
            let _ = writeln!(
                out,
                "    <source type='unix' path='{socket}' mode='server'/>"
            );
        } else {
            let _ = writeln!(
                out,
                "    <source type='unix' path='{socket}' mode='client'>"
            );
            let _ = writeln!(
                out,
                "      <reconnect enabled='yes' timeout='1'/>\n    </source>"
            );
        }
        let _ = writeln!(out, "    <model type='virtio'/>");
        if config.queues > 1 {
            let _ = writeln!(out, "    <driver queues='{}'/>", config.queues);
        }
        if let Some(mtu) = config.mtu {
            let _ = writeln!(out, "    <mtu size='{mtu}'/>");
        }
        out.push_str("  </interface>\n");
        out
    }

    fn cloud_hypervisor(&self) -> String {
        let Self { mac, config, .. } = self;
        let mode = if self.listens {
            ",vhost_mode=server"
        } else {
            ""
        };
        let mtu = config
            .mtu
            .map_or_else(String::new, |mtu| format!(",mtu={mtu}"));
        let net = format!(
            "vhost_user=true,socket={},num_queues={},mac={mac}{mode}{mtu}",
            self.socket,
            2 * config.queues
        );
        format!(
            "# cloud-hypervisor\n  --memory size=1G,shared=on \\\n  --net {}\n",
            quote(&net)
        )
    }
}

/// `text` as one word for a shell.
fn quote(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./,:=@+%".contains(c);
    if text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// `text` as an attribute's value.
fn xml(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('\'', "&apos;")
        .replace('<', "&lt;")
}

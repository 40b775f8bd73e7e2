//! nginx, as the web server behind a port.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use crate::{Netns, Process, Result, Workspace, wait_until};

/// The length of the large file that every [`Nginx`] serves as `/large`, in bytes.
pub const LARGE: usize = 32 << 20;

/// A running nginx. It answers `/` with its name and the client's address as it sees it, `NAME ADDRESS`,
/// and `/large` with [`LARGE`] bytes.
pub struct Nginx {
    _process: Process,
    files: Workspace,
}

impl Nginx {
    /// Starts one that listens on port 80 of every address of `netns`.
    pub fn start(netns: &Netns, name: &str) -> Result<Self> {
        let files = Workspace::new()?;
        let root = files.path("");
        let root = root.display();
        // Bytes that differ from place to place, so that a swapped or repeated segment shows.
        let large: Vec<u8> = (0..LARGE / 4)
            .flat_map(|word| (word as u32).to_be_bytes())
            .collect();
        fs::write(files.path("large"), large)?;
        // One process only: workers would outlive a master that is killed.
        fs::write(
            files.path("conf"),
            format!(
                "user root; master_process off; daemon off; pid {root}/pid; error_log stderr;\n\
                 events {{ worker_connections 64; }}\n\
                 http {{\n\
                   access_log off; sendfile on; client_body_temp_path {root}/body;\n\
                   proxy_temp_path {root}/proxy; fastcgi_temp_path {root}/fastcgi;\n\
                   uwsgi_temp_path {root}/uwsgi; scgi_temp_path {root}/scgi;\n\
                   server {{\n\
                     listen 80; root {root};\n\
                     location = / {{ return 200 '{name} $remote_addr\\n'; }}\n\
                   }}\n\
                 }}\n"
            ),
        )?;
        let conf = files.path("conf");
        let mut process = netns.start(&format!("nginx -p {root} -c {}", conf.display()))?;
        wait_until(Duration::from_mins(1), "nginx to listen", || {
            if process.ended()?.is_some() {
                return Err(process.error("nginx has ended"));
            }
            Ok(netns
                .ok("ss --listening --tcp --numeric --no-header")?
                .contains(":80")
                .then_some(()))
        })?;
        Ok(Self {
            _process: process,
            files,
        })
    }

    /// The path of the large file on the host.
    pub fn large(&self) -> PathBuf {
        self.files.path("large")
    }
}

//! The functions there are. A new one is a folder and a line here.

use chainplane_dataplane::function::Blueprint;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::{Claim, ConfigError, Kind, Shape, Site};

macro_rules! catalogue {
    ($( $(#[doc = $help:literal])+ $variant:ident($config:ty) = $word:literal, )+) => {
        /// A function's configuration, as it stands in YAML under the function's name.
        #[derive(Clone, Debug, Deserialize, JsonSchema)]
        pub enum FunctionConfig {
            $( $(#[doc = $help])+ #[serde(rename = $word)] $variant($config), )+
        }

        impl FunctionConfig {
            /// The words that choose a kind.
            pub const KINDS: &'static [&'static str] = &[$($word),+];

            /// The word that chose this kind.
            pub fn kind(&self) -> &'static str {
                match self { $( Self::$variant(_) => $word, )+ }
            }

            fn body(&self) -> &dyn Kind {
                match self { $( Self::$variant(config) => config, )+ }
            }
        }
    };
}

catalogue! {
    /// Forwards between its interfaces by destination address.
    Router(crate::router::Config) = "router",
    /// Lets through what its rules allow, and the answers to it.
    Firewall(crate::firewall::Config) = "firewall",
    /// Lets many hosts inside share few addresses outside.
    Nat(crate::nat::Config) = "nat",
    /// Spreads connections to one address over many servers.
    LoadBalancer(crate::load_balancer::Config) = "load-balancer",
}

impl FunctionConfig {
    /// Everything that is wrong with it by itself, with paths relative to the function's body.
    pub fn check(&self) -> Vec<ConfigError> {
        self.body().check()
    }

    /// How it stands in chains.
    pub fn shape(&self, name: &str) -> Shape {
        self.body().shape(name)
    }

    /// Addresses it takes for itself.
    pub fn claims(&self) -> Vec<Claim> {
        self.body().claims()
    }

    /// Compiles it for where it stands. The configuration has passed [`FunctionConfig::check`].
    ///
    /// # Errors
    /// What does not fit where it stands.
    pub fn compile(&self, site: &Site) -> Result<Box<dyn Blueprint>, Vec<ConfigError>> {
        self.body().compile(site)
    }
}

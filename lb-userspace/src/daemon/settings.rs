//! What the daemon goes by: the configuration file, overridden by the command line.

use super::args::{Args, DEFAULT_CONFIG};
use super::config::{self, Config, ConfigError, LogLevel, Metrics, Mode, Sizes};
use crate::api::{DEFAULT_SOCKET, SOCKET_VARIABLE, Setting};
use crate::model::Desired;
use clap::ValueEnum;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;
use toml::Table;

/// Where maps and links are pinned unless told otherwise.
pub const DEFAULT_PIN_DIR: &str = "/sys/fs/bpf/lvx";

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// `--interface`.
    #[error("--interface: `{0}` cannot be an interface's name")]
    InterfaceName(String),
    /// No interface anywhere.
    #[error("no interface to balance on: name one with --interface, or in `interfaces` of {}", .0.display())]
    NoInterface(PathBuf),
}

/// Everything that is set before start.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The configuration file, read again on SIGHUP.
    pub config_path: PathBuf,
    /// Whether that file must exist.
    config_required: bool,
    /// Names of interfaces, each once.
    pub interfaces: Vec<String>,
    /// Where the program runs.
    pub mode: Mode,
    /// Control socket.
    pub socket: PathBuf,
    /// Group of the control socket.
    pub socket_group: Option<String>,
    /// Group that may read, through a second socket.
    pub read_group: Option<String>,
    /// Prometheus.
    pub metrics: Metrics,
    /// Permission bits of the control socket.
    pub socket_mode: u32,
    /// Where maps and links are pinned.
    pub pin_dir: PathBuf,
    /// Whether program and maps stay at exit.
    pub stay_attached: bool,
    /// Whether pinned maps of an earlier daemon are thrown away.
    pub discard: bool,
    /// How long to wait for the connections in maps of another version.
    pub drain: Option<Duration>,
    /// An XDP object in place of the built-in one.
    pub object: Option<PathBuf>,
    /// Capacities.
    pub sizes: Sizes,
    /// All of this as a configuration has it, for `lvxadm plan` and `lvxadm export`.
    pub fixed: Table,
    /// The command line.
    args: Args,
    /// How much is logged.
    pub log: LogLevel,
}

/// Reads the configuration; an absent file is an empty one unless it is required.
fn read(path: &std::path::Path, required: bool) -> Result<(Config, Desired), ConfigError> {
    match Config::read(path) {
        Err(ConfigError::Read { source, .. }) if source.kind() == ErrorKind::NotFound && !required => {
            Ok((Config::default(), Desired::default()))
        }
        other => other,
    }
}

/// What a configuration sets for the start, the command line's values in place of its own.
fn overridden(args: &Args, config: &Config) -> Table {
    let mut table = config.fixed.clone();
    let path = |p: &Path| p.to_string_lossy().into_owned();
    let set = |table: &mut Table, key: &str, value: Option<toml::Value>| value.map(|v| table.insert(key.into(), v));
    let names: Vec<toml::Value> = interfaces(args, config).into_iter().map(Into::into).collect();
    set(&mut table, "interfaces", Some(names.into()));
    set(&mut table, "mode", args.mode.as_ref().and_then(name_of));
    set(&mut table, "log", args.log.as_ref().and_then(name_of));
    set(&mut table, "pin_dir", args.pin_dir.as_deref().map(|p| path(p).into()));
    if args.stay_attached || args.detach_on_exit {
        set(&mut table, "stay_attached", Some(args.stay_attached.into()));
    }
    if let Some(socket) = args.socket.clone().or_else(socket_of_environment) {
        let entry = table.entry("socket").or_insert_with(|| Table::new().into());
        if let Some(section) = entry.as_table_mut() {
            set(section, "path", Some(path(&socket).into()));
        }
    }
    table
}

/// A value of the command line, as the configuration writes it.
fn name_of(value: &impl ValueEnum) -> Option<toml::Value> {
    value.to_possible_value().map(|v| v.get_name().into())
}

/// Names of interfaces, each once.
fn interfaces(args: &Args, config: &Config) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for name in config.interfaces().chain(args.interfaces.iter().map(String::as_str)) {
        if !all.iter().any(|i| i == name) {
            all.push(name.into());
        }
    }
    all
}

fn pin_dir(args: &Args, config: &Config) -> PathBuf {
    args.pin_dir.clone().or_else(|| config.pin_dir.clone()).unwrap_or_else(|| DEFAULT_PIN_DIR.into())
}

fn socket(args: &Args, config: &Config) -> PathBuf {
    let named = args.socket.clone().or_else(socket_of_environment).or_else(|| config.socket.path.clone());
    named.unwrap_or_else(|| DEFAULT_SOCKET.into())
}

fn socket_of_environment() -> Option<PathBuf> {
    std::env::var_os(SOCKET_VARIABLE).filter(|v| !v.is_empty()).map(PathBuf::from)
}

impl Settings {
    /// Settings and the services of the configuration. Touches nothing.
    ///
    /// # Errors
    /// The first thing wrong.
    pub fn new(args: &Args) -> Result<(Self, Desired), SettingsError> {
        let config_path = args.config.clone().unwrap_or_else(|| DEFAULT_CONFIG.into());
        let config_required = args.config.is_some();
        let (config, desired) = read(&config_path, config_required)?;
        if let Some(bad) = args.interfaces.iter().find(|i| !config::is_interface_name(i)) {
            return Err(SettingsError::InterfaceName(bad.clone()));
        }
        let interfaces = interfaces(args, &config);
        if interfaces.is_empty() {
            return Err(SettingsError::NoInterface(config_path));
        }
        let settings = Self {
            config_path,
            config_required,
            interfaces,
            mode: args.mode.or(config.mode).unwrap_or_default(),
            socket: socket(args, &config),
            socket_group: config.socket.group.clone(),
            socket_mode: config.socket.mode(),
            read_group: config.socket.read_group.clone(),
            metrics: config.metrics,
            pin_dir: pin_dir(args, &config),
            stay_attached: args.stay_attached || (config.stay_attached && !args.detach_on_exit),
            discard: args.discard,
            drain: args.drain.map(Duration::from_secs),
            object: args.object.clone(),
            fixed: overridden(args, &config),
            args: args.clone(),
            log: args.log.or(config.log).unwrap_or_default(),
            sizes: config.sizes,
        };
        Ok((settings, desired))
    }

    /// Pin directory and control socket alone: no interface need be named.
    ///
    /// # Errors
    /// If the configuration is wrong.
    pub fn places(args: &Args) -> Result<(PathBuf, PathBuf), ConfigError> {
        let path = args.config.clone().unwrap_or_else(|| DEFAULT_CONFIG.into());
        let (config, _) = read(&path, args.config.is_some())?;
        Ok((pin_dir(args, &config), socket(args, &config)))
    }

    /// What differs in a configuration that only a new start can make true, if it were started with the same command line.
    #[must_use]
    pub fn waiting(&self, config: &Config) -> Vec<Setting> {
        config::differing(&self.fixed, &overridden(&self.args, config))
    }

    /// Reads the configuration again, for its services, timeouts and switches.
    ///
    /// # Errors
    /// The first thing wrong.
    pub fn reread(&self) -> Result<(Config, Desired), ConfigError> {
        read(&self.config_path, self.config_required)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(config: Option<PathBuf>, interfaces: &[&str]) -> Args {
        Args { config, interfaces: interfaces.iter().map(ToString::to_string).collect(), ..Args::default() }
    }

    #[test]
    fn the_command_line_overrides_and_adds() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lvx.toml");
        std::fs::write(&path, "interfaces = [\"eth0\"]\nmode = \"native\"\nstay_attached = true\npin_dir = \"/a\"").unwrap();
        let (s, _) = Settings::new(&args(Some(path.clone()), &["eth1", "eth0"])).unwrap();
        assert_eq!(s.interfaces, ["eth0", "eth1"]);
        assert_eq!((s.mode, s.stay_attached, s.pin_dir), (Mode::Native, true, "/a".into()));
        let over = Args {
            mode: Some(Mode::Generic),
            detach_on_exit: true,
            pin_dir: Some("/b".into()),
            socket: Some("/c".into()),
            ..args(Some(path), &[])
        };
        let (s, _) = Settings::new(&over).unwrap();
        assert_eq!((s.mode, s.stay_attached, s.pin_dir, s.socket), (Mode::Generic, false, "/b".into(), "/c".into()));
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = |a: &Args| Settings::new(a).unwrap_err().to_string();
        assert!(error(&args(Some("/nonexistent/x.toml".into()), &["eth0"])).contains("/nonexistent/x.toml"));
        assert!(error(&args(None, &["a b"])).contains("`a b`"));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lvx.toml");
        std::fs::write(&path, "").unwrap();
        assert!(error(&args(Some(path), &[])).contains("--interface"));
    }
}

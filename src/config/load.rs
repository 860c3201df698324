//! Merging: built-in defaults, then the file, then the environment. Every error names the key and where it came from.

use std::fmt;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::Config;

/// What is wrong with the configuration: one line for each fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError(pub Vec<String>);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for ConfigError {}

impl ConfigError {
    fn one(line: impl Into<String>) -> Self {
        Self(vec![line.into()])
    }
}

/// A configuration that was loaded and found possible.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// The file it was read from.
    pub file: Option<PathBuf>,
    /// What is allowed and probably not meant.
    pub warnings: Vec<String>,
}

/// Environment variables start with this.
const PREFIX: &str = "RECOUP_";
/// The file to use where none is named.
const FILE_VARIABLE: &str = "RECOUP_CONFIG";
const DEFAULT_FILE: &str = "config.toml";
/// What can be given as `x_file` too: one secret, or one a line.
const SECRETS: [&str; 6] = ["api_key", "key", "secret", "secrets", "provider_secret", "provider_secrets"];

impl Config {
    /// What a file of that text would mean, were there no environment and no files of secrets.
    ///
    /// # Errors
    /// [`ConfigError`] lists what is wrong.
    pub(crate) fn of_text(text: &str) -> Result<Self, ConfigError> {
        let table = text.parse().map_err(|error: toml::de::Error| ConfigError::one(error.to_string()))?;
        let config = deserialize(table, None)?;
        config.validate()?;
        Ok(config)
    }

    /// Loads the configuration. `file`: named by the user; else `$RECOUP_CONFIG`, else `config.toml` if there is one.
    ///
    /// # Errors
    /// [`ConfigError`] lists what is wrong, each with its key.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Loaded, ConfigError> {
        let environment: Vec<_> = environment.into_iter().collect();
        let named = file.map(Path::to_owned).or_else(|| {
            let variable = environment.iter().find(|(name, value)| name == FILE_VARIABLE && !value.is_empty());
            variable.map(|(_, value)| PathBuf::from(value))
        });
        let file = named.or_else(|| Some(PathBuf::from(DEFAULT_FILE)).filter(|path| path.exists()));
        let mut table = match &file {
            Some(path) => read_file(path)?,
            None => Table::new(),
        };
        overlay(&mut table, &environment)?;
        read_secret_files(&mut table, "")?;
        let config = deserialize(table, file.as_deref())?;
        let mut warnings = config.validate()?;
        warnings.extend(file.as_deref().filter(|_| config.holds_secrets()).and_then(readable_by_others));
        Ok(Loaded { config, file, warnings })
    }
}

/// A warning, should others on the machine be able to read the file.
fn readable_by_others(path: &Path) -> Option<String> {
    use std::os::unix::fs::PermissionsExt;
    let mode = path.metadata().ok()?.permissions().mode();
    let shown = path.display();
    (mode & 0o077 != 0).then(|| format!("{shown}: holds secrets and can be read by others; chmod 600 {shown}"))
}

fn read_file(path: &Path) -> Result<Table, ConfigError> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).map_err(|error| ConfigError::one(format!("{shown}: {error}")))?;
    text.parse()
        .map_err(|error: toml::de::Error| ConfigError::one(format!("{shown}: {}", error.to_string().trim_end())))
}

/// Lays `RECOUP_<SECTION>__<KEY>` over the table.
fn overlay(table: &mut Table, environment: &[(String, String)]) -> Result<(), ConfigError> {
    let defaults = Value::try_from(Config::default()).map_err(|error| ConfigError::one(error.to_string()))?;
    for (name, text) in environment {
        let Some(path) = name.strip_prefix(PREFIX) else { continue };
        let keys: Vec<String> = path.split("__").map(str::to_ascii_lowercase).collect();
        if keys.len() < 2 {
            refuse_single_underscore(name, path, &defaults)?;
            continue;
        }
        let default = keys.iter().try_fold(&defaults, |value, key| value.get(key));
        let value = typed(text, default).map_err(|wanted| {
            ConfigError::one(format!("{}: {text:?} must be {wanted} (from {name})", keys.join(".")))
        })?;
        put(table, &keys, value).map_err(|key| ConfigError::one(format!("{key}: is no section (from {name})")))?;
    }
    Ok(())
}

/// `RECOUP_PROVIDER_API_KEY` is a likely mistake for `RECOUP_PROVIDER__API_KEY`; variables of others (as Kubernetes sets
/// them) are not ours to complain about.
fn refuse_single_underscore(name: &str, path: &str, defaults: &Value) -> Result<(), ConfigError> {
    let Some((section, key)) = path.split_once('_') else { return Ok(()) };
    let known = defaults.get(section.to_ascii_lowercase()).and_then(|section| section.get(key.to_ascii_lowercase()));
    match known {
        Some(_) => Err(ConfigError::one(format!("{name}: write {PREFIX}{section}__{key}, with two underscores"))),
        None => Ok(()),
    }
}

/// The text as the type that the default has; a key without one is taken as text, so that no secret is retyped.
fn typed(text: &str, default: Option<&Value>) -> Result<Value, &'static str> {
    match default {
        Some(Value::Integer(_)) => text.trim().parse().map(Value::Integer).map_err(|_| "a whole number"),
        Some(Value::Boolean(_)) => text.trim().parse().map(Value::Boolean).map_err(|_| "true or false"),
        Some(Value::Array(_)) => {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            Ok(Value::Array(items.map(|item| Value::String(item.to_owned())).collect()))
        }
        Some(Value::Table(_)) => Err("set key by key"),
        Some(Value::String(_) | Value::Float(_) | Value::Datetime(_)) | None => Ok(Value::String(text.to_owned())),
    }
}

fn put(table: &mut Table, keys: &[String], value: Value) -> Result<(), String> {
    let Some((last, sections)) = keys.split_last() else { return Ok(()) };
    let mut table = table;
    for section in sections {
        let entry = table.entry(section.clone()).or_insert_with(|| Value::Table(Table::new()));
        table = entry.as_table_mut().ok_or_else(|| section.clone())?;
    }
    table.insert(last.clone(), value);
    Ok(())
}

/// Replaces every `x_file` by what the file holds.
fn read_secret_files(table: &mut Table, path: &str) -> Result<(), ConfigError> {
    for name in SECRETS {
        let file_key = format!("{name}_file");
        let Some(file) = table.remove(&file_key) else { continue };
        let key = format!("{path}{file_key}");
        let Value::String(file) = file else { return Err(ConfigError::one(format!("{key}: must be a path"))) };
        if file.is_empty() {
            continue;
        }
        if table
            .get(name)
            .is_some_and(|value| value.as_str() != Some("") && value.as_array().is_none_or(|v| !v.is_empty()))
        {
            return Err(ConfigError::one(format!("{path}{name} and {key} are both set; keep one of them")));
        }
        let text =
            std::fs::read_to_string(&file).map_err(|error| ConfigError::one(format!("{key}: {file}: {error}")))?;
        let value = if name.ends_with("secrets") {
            let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
            Value::Array(lines.map(|line| Value::String(line.to_owned())).collect())
        } else {
            let text = text.strip_suffix('\n').unwrap_or(&text);
            Value::String(text.strip_suffix('\r').unwrap_or(text).to_owned())
        };
        table.insert(name.to_owned(), value);
    }
    for (key, value) in table.iter_mut() {
        match value {
            Value::Table(inner) => read_secret_files(inner, &format!("{path}{key}."))?,
            Value::Array(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    if let Value::Table(inner) = item {
                        read_secret_files(inner, &format!("{path}{key}[{index}]."))?;
                    }
                }
            }
            Value::String(_) | Value::Integer(_) | Value::Float(_) | Value::Boolean(_) | Value::Datetime(_) => {}
        }
    }
    Ok(())
}

fn deserialize(table: Table, file: Option<&Path>) -> Result<Config, ConfigError> {
    serde_path_to_error::deserialize::<_, Config>(Value::Table(table)).map_err(|error| {
        let key = error.path().to_string();
        let inner = error.inner().message().to_owned();
        let origin = file.map_or(String::new(), |file| format!(" (from {} or the environment)", file.display()));
        ConfigError::one(format!("{key}: {inner}{origin}"))
    })
}

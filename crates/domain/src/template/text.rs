//! What stands in a configuration: read as far as a create needs it, and written.

use std::fmt::Write as _;

/// What a template says for those who leave it out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Defaults {
    /// Which recipe runs it.
    pub runtime: Option<String>,
    /// Which model it uses.
    pub model: Option<String>,
}

/// Read the defaults line by line: `runtime:` at the beginning of a line, `model:` below `runtime_config:` or,
/// as older templates have it, at the beginning of a line. Understands no more of YAML than that, so that a
/// template with a mistake further down still has defaults.
#[must_use]
pub fn defaults(config: &str) -> Defaults {
    let (mut found, mut older, mut inside) = (Defaults::default(), None, false);
    for line in config.lines() {
        let indented = line.starts_with([' ', '\t']);
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let Some((key, value)) = line.split_once(':') else {
            inside &= indented;
            continue;
        };
        match (indented, key.trim_end()) {
            (false, "runtime_config") => inside = true,
            (false, key) => {
                inside = false;
                match key {
                    "runtime" => found.runtime = found.runtime.or_else(|| scalar(value)),
                    "model" => older = older.or_else(|| scalar(value)),
                    _ => {}
                }
            }
            (true, "model") if inside => found.model = found.model.or_else(|| scalar(value)),
            (true, _) => {}
        }
    }
    found.model = found.model.or(older);
    found
}

/// A value on its line, without quotes and what is said beside it.
fn scalar(value: &str) -> Option<String> {
    let value = value.trim();
    let quoted = ['"', '\''].into_iter().find_map(|quote| {
        let rest = value.strip_prefix(quote)?;
        rest.split_once(quote).map(|(inside, _)| inside)
    });
    let plain = || {
        let cut = value.find(" #").unwrap_or(value.len());
        let plain = &value[..cut];
        if plain.starts_with('#') { "" } else { plain.trim_end() }
    };
    let value = quoted.unwrap_or_else(plain);
    (!value.is_empty()).then(|| value.to_owned())
}

/// What is known of a workspace that has no template.
#[derive(Debug, Clone, Copy)]
pub struct Basics<'a> {
    /// Its name.
    pub name: &'a str,
    /// What it is for.
    pub role: Option<&'a str>,
    /// Its tier.
    pub tier: i64,
    /// Its runtime, sanitised.
    pub runtime: &'a str,
    /// Its model, if somebody chose one.
    pub model: Option<&'a str>,
}

/// A configuration for a workspace that has no template.
#[must_use]
pub fn generate(of: Basics<'_>) -> String {
    let mut text = String::new();
    let mut line = |key: &str, value: &str| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{key}: {value}");
    };
    line("name", &quote(of.name));
    line("description", &quote(of.role.unwrap_or_default()));
    line("version", &quote("1.0.0"));
    line("tier", &of.tier.to_string());
    line("runtime", &quote(of.runtime));
    line("model", &quote(of.model.unwrap_or_else(|| default_model(of.runtime))));
    if !["langgraph", "deepagents"].contains(&of.runtime) {
        text.push_str("runtime_config:\n  timeout: 0\n");
    }
    text
}

fn default_model(runtime: &str) -> &'static str {
    match runtime {
        "claude-code" => "sonnet",
        _ => "anthropic:claude-opus-4-7",
    }
}

/// A text as YAML reads it back, whatever is in it: between double quotes, everything that could end them, the
/// line or the stream escaped.
#[must_use]
pub fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            '\r' => quoted.push_str("\\r"),
            c if !printable(c) => {
                let code = u32::from(c);
                let _ = match code {
                    0..=0xffff => write!(quoted, "\\u{code:04x}"),
                    _ => write!(quoted, "\\U{code:08x}"),
                };
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// What may stand in a YAML stream as it is, and breaks no line in any version of YAML.
fn printable(c: char) -> bool {
    !c.is_control() && !matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
}

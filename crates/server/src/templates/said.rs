//! What a `config.yaml` says of its template.

use ligand_domain::template::{Defaults, defaults};
use saphyr_parser::{Event, Parser, ScalarStyle};
use serde_json::{Map, Value};

/// Values inside each other.
const MOST_DEPTH: usize = 64;

/// As much of it as the platform looks at.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Said {
    /// For those who leave them out.
    pub(super) defaults: Defaults,
    pub(super) name: Option<String>,
    pub(super) description: String,
    pub(super) tier: i64,
    pub(super) models: Option<Vec<Value>>,
    pub(super) required_env: Vec<String>,
    pub(super) skills: Vec<String>,
    pub(super) provision_timeout_seconds: Option<u64>,
}

impl Said {
    /// Understand it whole.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn read(text: &str) -> Result<Self, String> {
        let config = parse(text)?;
        let runtime = &config["runtime_config"];
        let string = |value: &Value| value.as_str().map(str::to_owned);
        Ok(Self {
            name: string(&config["name"]).filter(|name| !name.is_empty()),
            description: string(&config["description"]).unwrap_or_default(),
            tier: config["tier"].as_i64().unwrap_or_default(),
            models: runtime["models"].as_array().or(config["models"].as_array()).cloned(),
            required_env: names(&runtime["required_env"]),
            skills: names(&config["skills"]),
            provision_timeout_seconds: runtime["provision_timeout_seconds"].as_u64(),
            ..Self::of_lines(text)
        })
    }

    /// What can be said of one that is not understood.
    pub(super) fn of_lines(text: &str) -> Self {
        Self { defaults: defaults(text), ..Self::default() }
    }
}

/// The texts of a list, or the names of its entries where those are more than texts.
fn names(list: &Value) -> Vec<String> {
    let entries = list.as_array().into_iter().flatten();
    let name = |entry: &Value| entry.as_str().or_else(|| entry["name"].as_str()).map(str::to_owned);
    entries.filter_map(name).filter(|name| !name.is_empty()).collect()
}

/// A value that is being read, and the key that waits for its value.
enum Open {
    List(Vec<Value>),
    Map(Map<String, Value>, Option<String>),
}

/// Read the first document of a YAML text. Aliases are refused: a short text can become a very long one by
/// them, and nobody writes a configuration with them.
fn parse(text: &str) -> Result<Value, String> {
    let mut open: Vec<Open> = Vec::new();
    for event in Parser::new_from_str(text) {
        let (event, at) = event.map_err(|cause| cause.to_string())?;
        let closed = match event {
            Event::MappingStart(..) | Event::SequenceStart(..) if open.len() == MOST_DEPTH => {
                return Err(format!("line {}: more than {MOST_DEPTH} levels", at.start.line()));
            }
            Event::MappingStart(..) => {
                open.push(Open::Map(Map::new(), None));
                continue;
            }
            Event::SequenceStart(..) => {
                open.push(Open::List(Vec::new()));
                continue;
            }
            Event::Alias(_) => return Err(format!("line {}: an alias", at.start.line())),
            Event::Scalar(text, style, ..) => scalar(&text, style),
            Event::MappingEnd | Event::SequenceEnd => match open.pop() {
                Some(Open::List(list)) => Value::Array(list),
                Some(Open::Map(map, _)) => Value::Object(map),
                None => return Err("an end without a beginning".to_owned()),
            },
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => continue,
        };
        match open.last_mut() {
            None => return Ok(closed),
            Some(Open::List(list)) => list.push(closed),
            Some(Open::Map(_, key @ None)) => *key = Some(key_text(&closed)),
            Some(Open::Map(map, key)) => {
                map.insert(key.take().unwrap_or_default(), closed);
            }
        }
    }
    Ok(Value::Null)
}

fn key_text(key: &Value) -> String {
    key.as_str().map_or_else(|| key.to_string(), str::to_owned)
}

/// A plain word may be a number or a truth; a quoted one is a text.
fn scalar(text: &str, style: ScalarStyle) -> Value {
    if style != ScalarStyle::Plain {
        return Value::from(text);
    }
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::from(true),
        "false" | "False" | "FALSE" => Value::from(false),
        _ => {
            let whole = text.parse::<i64>().map(Value::from);
            let float = || text.parse::<f64>().ok().filter(|it| it.is_finite()).map(Value::from);
            whole.ok().or_else(float).unwrap_or_else(|| Value::from(text))
        }
    }
}

#[cfg(test)]
mod tests {
    use ligand_domain::template::{Basics, generate};
    use serde_json::json;

    use super::*;

    #[test]
    fn ws_06_no_text_becomes_a_key_of_a_generated_configuration() {
        let evil = [
            "a\nruntime: evil",
            "a\"\nevil: true\n#",
            "a: b",
            "- x",
            "\u{2028}evil: 1\u{85}evil: 2\u{feff}",
            "\\\"\\u0022 # comment",
            "&a *a !!x %YAML --- ...",
            "\u{0}\u{7f}\u{1f600}\t",
            "",
            "true",
            "~",
        ];
        for (name, model) in
            evil.iter().flat_map(|name| evil.iter().map(move |model| (name, model)))
        {
            let of =
                Basics { name, role: Some(model), tier: 2, runtime: "hermes", model: Some(model) };
            let read = parse(&generate(of)).unwrap();
            let expected = json!({"name": name, "description": model, "version": "1.0.0", "tier": 2,
                "runtime": "hermes", "model": model, "runtime_config": {"timeout": 0}});
            assert_eq!(read, expected);
        }
    }

    #[test]
    fn a_configuration_is_understood_as_far_as_it_matters() {
        let text = "name: Writer\ndescription: >\n  writes\n  a lot\ntier: 2\nruntime: hermes\nskills: [a, {name: b}]\n\
            runtime_config:\n  model: m\n  provision_timeout_seconds: 900\n  required_env:\n    - KEY\n    - \"OTHER\"\n  models:\n    - id: x\n      name: X\n";
        let said = Said::read(text).unwrap();
        assert_eq!((said.name.as_deref(), said.tier), (Some("Writer"), 2));
        assert_eq!(said.description, "writes a lot\n");
        assert_eq!(said.skills, ["a", "b"]);
        assert_eq!(said.required_env, ["KEY", "OTHER"]);
        assert_eq!(said.provision_timeout_seconds, Some(900));
        assert_eq!(said.models, Some(vec![json!({"id": "x", "name": "X"})]));
        assert_eq!(said.defaults.model.as_deref(), Some("m"));
        assert_eq!(Said::read("").unwrap(), Said::default());
        assert_eq!(Said::read("just a text").unwrap(), Said::default());
    }

    #[test]
    fn what_is_not_understood_says_where() {
        assert!(parse("a: &x 1\nb: *x\n").unwrap_err().contains("alias"));
        assert!(parse(&"[".repeat(1000)).is_err());
        assert!(parse("a: [1\nb: 2\n").is_err());
        let said = Said::of_lines("runtime: hermes\nb: *x");
        assert_eq!(said.defaults.runtime.as_deref(), Some("hermes"));
    }
}

//! Which template is chosen, and what a configuration says.

use proptest::prelude::*;

use super::*;

fn entry(id: &str, name: Option<&str>) -> Entry {
    Entry { id: id.to_owned(), name: name.map(str::to_owned) }
}

fn known(ids: &[&str]) -> Known {
    Known { templates: ids.iter().map(|id| entry(id, None)).collect(), org: Vec::new() }
}

fn asked(template: &str) -> Asked {
    Asked { template: Some(template.to_owned()), ..Asked::default() }
}

fn apply() -> Asked {
    Asked { apply_template: true, ..Asked::default() }
}

fn label(asked: &Asked, name: &str, runtime: Option<&str>, known: &Known) -> String {
    for_restart(asked, name, runtime, known).label().to_owned()
}

#[test]
fn rt_01_a_plain_restart_keeps_what_is_there() {
    let known = known(&["agent", "langgraph-default"]);
    let chosen = label(&Asked::default(), "agent", Some("langgraph"), &known);
    assert_eq!(chosen, "existing-volume");
}

#[test]
fn rt_02_rt_06_rt_07_an_explicit_template_counts_where_it_is_there() {
    let known = known(&["custom", "deep/er"]);
    for (template, chosen) in [
        ("custom", "custom"),
        ("./custom/", "custom"),
        ("deep/er", "deep/er"),
        ("missing", "existing-volume"),
        ("../custom", "existing-volume"),
        ("custom/../../etc", "existing-volume"),
        ("/etc", "existing-volume"),
        (".", "existing-volume"),
    ] {
        assert_eq!(label(&asked(template), "x", Some("langgraph"), &known), chosen, "{template}");
    }
}

#[test]
fn rt_03_apply_template_finds_it_by_name() {
    let mut known = known(&["seo-agent", "ws-mine"]);
    known.templates.push(entry("other", Some("Code Reviewer")));
    known.templates.push(entry("ws-left", Some("left over")));
    for (name, chosen) in [
        ("SEO Agent", "seo-agent"),
        ("code reviewer", "other"),
        ("left over", "existing-volume"),
        ("ws-mine", "existing-volume"),
        ("nobody", "existing-volume"),
    ] {
        assert_eq!(label(&apply(), name, None, &known), chosen, "{name}");
    }
}

#[test]
fn a_directory_goes_before_what_another_one_calls_itself() {
    let templates = vec![entry("a", Some("b")), entry("b", None)];
    let known = Known { templates, org: Vec::new() };
    assert_eq!(label(&apply(), "b", None, &known), "b");
}

#[test]
fn rt_04_rt_05_else_the_default_of_the_runtime() {
    let known = known(&["claude-code-default"]);
    assert_eq!(label(&apply(), "x", Some("claude-code"), &known), "claude-code-default");
    assert_eq!(label(&apply(), "x", Some("hermes"), &known), "existing-volume");
    assert_eq!(label(&apply(), "x", None, &known), "existing-volume");
}

#[test]
fn rt_08_explicit_goes_before_apply() {
    let known = known(&["by-name", "explicit"]);
    let both = Asked { apply_template: true, ..asked("explicit") };
    assert_eq!(label(&both, "by name", None, &known), "explicit");
    let missing = Asked { apply_template: true, ..asked("missing") };
    assert_eq!(label(&missing, "by name", None, &known), "existing-volume");
}

#[test]
fn rt_09_rt_10_a_runtime_chooses_no_directory_by_its_text() {
    let nobody = |_: &str| false;
    let evil =
        ["../../etc", "claude-code/../../etc", "/etc", "..", "", "claude-code\0", "Claude-Code"];
    for runtime in evil {
        assert_eq!(sanitise(runtime, nobody), "langgraph", "{runtime}");
        // Not even where somebody gave it a recipe.
        if runtime != "Claude-Code" {
            assert_eq!(sanitise(runtime, |_| true), "langgraph", "{runtime}");
        }
    }
    let known = known(&["claude-code-default", "../../etc-default"]);
    let runtime = sanitise("../../etc", nobody);
    assert_eq!(label(&apply(), "x", Some(runtime), &known), "existing-volume");
    assert_eq!(sanitise("claude-code", nobody), "claude-code");
    assert_eq!(sanitise("echo", |name| name == "echo"), "echo");
    assert_eq!(sanitise("echo", nobody), "langgraph");
}

#[test]
fn rebuild_takes_the_organisations() {
    let mut known = known(&["langgraph-default"]);
    known.org.push(entry("acme/seo-agent", None));
    let rebuild = Asked { rebuild_config: true, ..Asked::default() };
    let chosen = for_restart(&rebuild, "SEO Agent", Some("langgraph"), &known);
    assert_eq!(chosen, Source::Org("acme/seo-agent".to_owned()));
    assert_eq!(label(&rebuild, "other", Some("langgraph"), &known), "existing-volume");
}

#[test]
fn a_create_takes_its_template_the_default_or_what_is_generated() {
    let known = known(&["custom", "hermes-default"]);
    assert_eq!(for_create(Some("custom"), "hermes", &known).label(), "custom");
    assert_eq!(for_create(Some("missing"), "hermes", &known).label(), "hermes-default");
    assert_eq!(for_create(None, "crewai", &known), Source::Generated);
}

#[test]
fn sources_survive_being_stored() {
    let named = ["a", "b/c"].map(str::to_owned);
    let [a, b] = named;
    for source in [Source::Template(a), Source::Org(b), Source::Generated, Source::Existing] {
        let (kind, id) = source.parts();
        assert_eq!(Source::from_parts(kind, id), Some(source.clone()));
    }
    assert_eq!(Source::from_parts("moon", ""), None);
}

#[test]
fn ws_05_defaults_are_read_line_by_line() {
    let of = |runtime: &str, model: &str| Defaults {
        runtime: Some(runtime.to_owned()).filter(|it| !it.is_empty()),
        model: Some(model.to_owned()).filter(|it| !it.is_empty()),
    };
    for (config, expected) in [
        ("runtime: hermes\nruntime_config:\n  model: \"a:b\"\n", of("hermes", "a:b")),
        ("runtime: 'hermes' # comment\nmodel: sonnet # the old way\n", of("hermes", "sonnet")),
        ("model: old\nruntime_config:\n    timeout: 3\n    model: new\n", of("", "new")),
        ("other:\n  model: x\n  runtime: y\n", of("", "")),
        ("runtime_config:\n\n  # comment\n  model: a#b\nskills: []\n  model: no\n", of("", "a#b")),
        ("runtime:\nmodel: \"\"\n", of("", "")),
        ("\u{0}{{{", of("", "")),
    ] {
        assert_eq!(defaults(config), expected, "{config}");
    }
}

#[test]
fn a_generated_configuration_says_what_is_known() {
    let of = Basics {
        name: "a",
        role: Some("writes \"tests\""),
        tier: 2,
        runtime: "claude-code",
        model: None,
    };
    let expected = "name: \"a\"\ndescription: \"writes \\\"tests\\\"\"\nversion: \"1.0.0\"\ntier: 2\n\
        runtime: \"claude-code\"\nmodel: \"sonnet\"\nruntime_config:\n  timeout: 0\n";
    assert_eq!(generate(of), expected);
    let other = generate(Basics { runtime: "langgraph", role: None, ..of });
    assert!(other.ends_with("model: \"anthropic:claude-opus-4-7\"\n"), "{other}");
    assert!(generate(Basics { model: Some("m"), ..of }).contains("model: \"m\"\n"));
}

#[test]
fn ws_06_a_directory_of_the_system_is_refused_however_it_is_written() {
    for path in ["/etc", "/etc/x", "//etc/x", "/./etc", "/usr", "/usr/local", "/lib/", "/var/x/.."]
    {
        assert!(host_directory(path).is_err(), "{path}");
    }
    for path in ["", "srv", "./srv", "/", "/srv/../etc"] {
        assert!(host_directory(path).is_err(), "{path}");
    }
    for (path, cleaned) in
        [("/srv/a/", "/srv/a"), ("/etcetera", "/etcetera"), ("/usrlocal//x", "/usrlocal/x")]
    {
        assert_eq!(host_directory(path), Ok(cleaned.to_owned()));
    }
    assert!(under("/srv/a", "/srv/") && under("/srv", "/srv") && !under("/srvx", "/srv"));
}

#[test]
fn a_credential_is_no_file_of_a_template() {
    for path in
        [".auth_token", "./.auth_token", ".auth_token.next", ".register_key", "", "a/../b", "/a"]
    {
        assert_eq!(file(path), None, "{path}");
    }
    assert_eq!(file("./a//b.md").as_deref(), Some("a/b.md"));
    assert_eq!(file("..a/...").as_deref(), Some("..a/..."));
}

#[test]
fn the_longest_declared_start_counts() {
    let declared =
        [("a", Some(30)), ("b", Some(900)), ("a", Some(90)), ("a", None), ("c", Some(0))];
    assert_eq!(longest_start("a", declared), Some(90));
    assert_eq!(longest_start("c", declared), None);
    assert_eq!(longest_start("d", declared), None);
}

proptest! {
    #[test]
    fn what_is_cleaned_stays_inside(path in "[a./\\\\~\u{e9}]{0,12}") {
        if let Some(path) = clean(&path) {
            prop_assert!(!path.starts_with('/') && !path.is_empty());
            prop_assert!(path.split('/').all(|part| !part.is_empty() && part != "." && part != ".."));
            prop_assert_eq!(clean(&path), Some(path.clone()));
        }
    }

    #[test]
    fn ws_06_a_quoted_text_is_one_line_of_printable_characters(text in any::<String>()) {
        let quoted = quote(&text);
        let breaks = |c: char| c.is_control() || ['\u{2028}', '\u{2029}', '\u{feff}'].contains(&c);
        let broken = quoted.contains(breaks);
        prop_assert!(!broken);
        prop_assert_eq!(unquote(&quoted), Some(text));
    }

    #[test]
    fn no_text_adds_a_line_to_a_configuration(name in any::<String>(), role in any::<String>(), model in any::<String>()) {
        let of = Basics { name: &name, role: Some(&role), tier: 3, runtime: "hermes", model: Some(&model) };
        let config = generate(of);
        let keys: Vec<&str> = config.lines().map(|line| line.split(':').next().unwrap_or_default()).collect();
        prop_assert_eq!(keys, ["name", "description", "version", "tier", "runtime", "model", "runtime_config", "  timeout"]);
        prop_assert_eq!(config.lines().next().and_then(|line| unquote(line.strip_prefix("name: ")?)), Some(name));
    }
}

/// Reads a double-quoted YAML text, by the specification and not by how it was written.
fn unquote(text: &str) -> Option<String> {
    let inner = text.strip_prefix('"')?.strip_suffix('"')?;
    let (mut read, mut rest) = (String::new(), inner.chars());
    while let Some(c) = rest.next() {
        match c {
            '"' => return None,
            '\\' => {
                let code = |digits: usize, rest: &mut std::str::Chars<'_>| {
                    let digits: String = rest.take(digits).collect();
                    char::from_u32(u32::from_str_radix(&digits, 16).ok()?)
                };
                read.push(match rest.next()? {
                    'n' => '\n',
                    't' => '\t',
                    'r' => '\r',
                    'u' => code(4, &mut rest)?,
                    'U' => code(8, &mut rest)?,
                    other @ ('"' | '\\') => other,
                    _ => return None,
                });
            }
            c => read.push(c),
        }
    }
    Some(read)
}

//! `--format` templates: the part of Go's that people write for `docker` and `podman`.
//!
//! `{{.Field.Sub}}`, `{{json .Field}}`, `{{join .List ", "}}`, `{{len .List}}`, `{{index .Map "key"}}`,
//! `{{range .List}}…{{end}}`, `{{if .Field}}…{{else}}…{{end}}`, and `\t` and `\n` in the text.

use anyhow::{Result, bail};
use serde_json::Value;

/// A part of a template.
#[derive(Debug, PartialEq)]
enum Part {
    Text(String),
    Print(Expression),
    Range(Expression, Vec<Part>),
    If(Expression, Vec<Part>, Vec<Part>),
}

/// What is printed or asked.
#[derive(Debug, PartialEq)]
enum Expression {
    /// Fields, one within the other; none is the whole.
    Path(Vec<String>),
    /// A string.
    Literal(String),
    /// A function of such.
    Call(String, Vec<Expression>),
}

/// A template that has been understood.
#[derive(Debug)]
pub(crate) struct Template {
    parts: Vec<Part>,
    /// It began with `table`: its first line is the fields' names.
    pub(crate) table: bool,
}

/// The functions that are known.
const FUNCTIONS: [&str; 7] = ["json", "join", "len", "index", "lower", "upper", "println"];

impl Template {
    /// Understands `text`.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let (table, text) = match text.strip_prefix("table ") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let mut rest = text;
        let (parts, end) = parse(&mut rest)?;
        if end.is_some() {
            bail!("format: {{{{end}}}} or {{{{else}}}} without a beginning");
        }
        Ok(Self { parts, table })
    }

    /// Fills it in.
    pub(crate) fn render(&self, value: &Value) -> Result<String> {
        let mut out = String::new();
        render(&self.parts, value, &mut out)?;
        Ok(out)
    }

    /// The names of its fields in place of their values; `id` is that of `ID`.
    pub(crate) fn header(&self, id: &str) -> String {
        let name = |path: &[String]| match path.last().map(String::as_str) {
            Some("ID") => id.to_owned(),
            Some("CreatedSince") => "CREATED".to_owned(),
            Some(name) => spaced(name),
            None => String::new(),
        };
        let part = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Print(Expression::Path(path)) => name(path),
            _ => String::new(),
        };
        self.parts.iter().map(part).collect()
    }
}

/// `CreatedAt` as `CREATED AT`.
fn spaced(name: &str) -> String {
    let mut out = String::new();
    let mut last_lower = false;
    for c in name.chars() {
        if c.is_uppercase() && last_lower {
            out.push(' ');
        }
        last_lower = c.is_lowercase();
        out.extend(c.to_uppercase());
    }
    out
}

/// Reads parts up to an `end` or `else`, which is returned.
fn parse(rest: &mut &str) -> Result<(Vec<Part>, Option<&'static str>)> {
    let mut parts = Vec::new();
    loop {
        let Some((text, after)) = rest.split_once("{{") else {
            push_text(&mut parts, rest);
            return Ok((parts, None));
        };
        push_text(&mut parts, text);
        let Some((action, after)) = after.split_once("}}") else { bail!("format: {{{{ without }}}}") };
        *rest = after;
        let action = action.trim();
        let (word, argument) = action.split_once(' ').unwrap_or((action, ""));
        match word {
            "end" => return Ok((parts, Some("end"))),
            "else" => return Ok((parts, Some("else"))),
            "range" | "if" => {
                let subject = expression(argument)?;
                let (inner, mut end) = parse(rest)?;
                let mut otherwise = Vec::new();
                if end == Some("else") && word == "if" {
                    (otherwise, end) = parse(rest)?;
                }
                if end != Some("end") {
                    bail!("format: {{{{{word}}}}} without {{{{end}}}}");
                }
                let range = word == "range";
                parts.push(if range { Part::Range(subject, inner) } else { Part::If(subject, inner, otherwise) });
            }
            _ => parts.push(Part::Print(expression(action)?)),
        }
    }
}

fn push_text(parts: &mut Vec<Part>, text: &str) {
    if !text.is_empty() {
        parts.push(Part::Text(text.replace("\\t", "\t").replace("\\n", "\n")));
    }
}

fn expression(text: &str) -> Result<Expression> {
    let mut words = words(text)?;
    if words.is_empty() {
        bail!("format: an empty {{{{}}}}");
    }
    match words.remove(0) {
        Expression::Path(path) if words.is_empty() => Ok(Expression::Path(path)),
        Expression::Literal(text) if words.is_empty() => Ok(Expression::Literal(text)),
        Expression::Call(name, _) if FUNCTIONS.contains(&name.as_str()) => Ok(Expression::Call(name, words)),
        Expression::Call(name, _) => bail!("format: {name:?} is not known; there are: {}", FUNCTIONS.join(" ")),
        _ => bail!("format: {text:?} is not understood"),
    }
}

fn words(text: &str) -> Result<Vec<Expression>> {
    let mut found = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('"') {
            let Some((literal, after)) = after.split_once('"') else { bail!("format: a quote without its end") };
            found.push(Expression::Literal(literal.to_owned()));
            rest = after.trim_start();
            continue;
        }
        let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        found.push(match word.strip_prefix('.') {
            Some(path) => {
                Expression::Path(path.split('.').filter(|name| !name.is_empty()).map(str::to_owned).collect())
            }
            None if word.bytes().all(|b| b.is_ascii_digit()) => Expression::Literal(word.to_owned()),
            None => Expression::Call(word.to_owned(), Vec::new()),
        });
        rest = after.trim_start();
    }
    Ok(found)
}

fn render(parts: &[Part], value: &Value, out: &mut String) -> Result<()> {
    for part in parts {
        match part {
            Part::Text(text) => out.push_str(text),
            Part::Print(expression) => out.push_str(&show(&evaluate(expression, value)?)),
            Part::Range(subject, inner) => {
                let items: Vec<Value> = match evaluate(subject, value)? {
                    Value::Array(items) => items,
                    Value::Object(map) => map.into_iter().map(|(_, item)| item).collect(),
                    _ => Vec::new(),
                };
                items.iter().try_for_each(|item| render(inner, item, out))?;
            }
            Part::If(subject, inner, otherwise) => {
                let holds = is_true(&evaluate(subject, value)?);
                render(if holds { inner } else { otherwise }, value, out)?;
            }
        }
    }
    Ok(())
}

fn evaluate(expression: &Expression, value: &Value) -> Result<Value> {
    match expression {
        Expression::Literal(text) => Ok(Value::String(text.clone())),
        Expression::Path(path) => {
            let mut found = value;
            for name in path {
                found = match found {
                    Value::Object(map) => match map.get(name) {
                        Some(inner) => inner,
                        None => bail!("format: no field {name:?}; there are: {}", keys(map)),
                    },
                    Value::Null => return Ok(Value::Null),
                    _ => bail!("format: {name:?} is asked of something that has no fields"),
                };
            }
            Ok(found.clone())
        }
        Expression::Call(name, arguments) => {
            let arguments = arguments.iter().map(|argument| evaluate(argument, value)).collect::<Result<Vec<_>>>()?;
            call(name, &arguments)
        }
    }
}

fn keys(map: &serde_json::Map<String, Value>) -> String {
    map.keys().map(String::as_str).collect::<Vec<_>>().join(" ")
}

fn call(name: &str, arguments: &[Value]) -> Result<Value> {
    let text = |text: String| Ok(Value::String(text));
    match (name, arguments) {
        ("json", [value]) => text(value.to_string()),
        ("lower", [value]) => text(show(value).to_lowercase()),
        ("upper", [value]) => text(show(value).to_uppercase()),
        ("println", values) => text(values.iter().map(show).collect::<Vec<_>>().join(" ") + "\n"),
        ("join", [Value::Array(items), between]) => {
            text(items.iter().map(show).collect::<Vec<_>>().join(&show(between)))
        }
        ("join", [Value::Null, _]) => text(String::new()),
        ("len", [Value::Array(items)]) => Ok(items.len().into()),
        ("len", [Value::Object(map)]) => Ok(map.len().into()),
        ("len", [Value::String(text)]) => Ok(text.len().into()),
        ("len", [Value::Null]) => Ok(0.into()),
        ("index", [value, keys @ ..]) => {
            let mut found = value;
            for key in keys {
                let key = show(key);
                let inner = match found {
                    Value::Array(items) => key.parse().ok().and_then(|at: usize| items.get(at)),
                    Value::Object(map) => map.get(&key),
                    _ => None,
                };
                found = inner.unwrap_or(&Value::Null);
            }
            Ok(found.clone())
        }
        _ => bail!("format: {name:?} does not take these arguments"),
    }
}

fn is_true(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(map) => !map.is_empty(),
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::Bool(true) => true,
    }
}

/// A value as Go prints it.
fn show(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let pairs = map.iter().map(|(key, value)| format!("{key}:{}", show(value)));
            format!("map[{}]", pairs.collect::<Vec<_>>().join(" "))
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rendered(text: &str) -> Result<String> {
        let value =
            json!({"Id": "x", "Config": {"Env": ["A=1", "B=2"], "Labels": {"k.l": "v"}, "User": ""}, "Size": 3});
        Template::parse(text)?.render(&value)
    }

    #[test]
    fn what_people_write_is_understood() {
        for (template, wanted) in [
            ("{{.Id}}\\t{{ .Size }}", "x\t3"),
            ("{{json .Config.Env}}", r#"["A=1","B=2"]"#),
            ("{{.Config.Env}} {{.Config.Labels}}", "[A=1 B=2] map[k.l:v]"),
            ("{{range .Config.Env}}<{{.}}>{{end}}", "<A=1><B=2>"),
            ("{{if .Config.User}}u{{else}}none{{end}}", "none"),
            ("{{index .Config.Labels \"k.l\"}}{{index .Config.Env 1}}", "vB=2"),
            ("{{join .Config.Env \", \"}} {{len .Config.Env}} {{upper .Id}}", "A=1, B=2 2 X"),
            ("plain", "plain"),
        ] {
            assert_eq!(rendered(template).unwrap(), wanted, "{template}");
        }
        for wrong in
            ["{{", "{{}}", "{{.Nope}}", "{{end}}", "{{if .Id}}", "{{with .Id}}{{end}}", "{{.Id.Sub}}", "{{len \"}}"]
        {
            assert!(rendered(wrong).is_err(), "{wrong}");
        }
        let table = Template::parse("table {{.ID}}\\t{{.Repository}}\\t{{.CreatedAt}}").unwrap();
        assert!(table.table);
        assert_eq!(table.header("IMAGE ID"), "IMAGE ID\tREPOSITORY\tCREATED AT");
    }
}

//! Reads as much of `PromQL` as is needed to say which metrics, labels and values an expression asks for.

use crate::telemetry::Scrape;

/// Words of the language that stand where a name could.
const WORDS: [&str; 15] = [
    "by",
    "without",
    "on",
    "ignoring",
    "group_left",
    "group_right",
    "and",
    "or",
    "unless",
    "bool",
    "offset",
    "inf",
    "nan",
    "start",
    "end",
];
/// Words that a list of labels follows.
const LISTS: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];
/// Labels that Prometheus adds, and the bound of a bucket.
const ADDED: [&str; 3] = ["job", "instance", "le"];

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Name(String),
    Text(String),
    Sign(char),
}

/// Ranges (`[5m]`) and numbers are left out.
fn tokens(expression: &str) -> Vec<Token> {
    let mut found = Vec::new();
    let mut rest = expression.chars().peekable();
    while let Some(sign) = rest.next() {
        match sign {
            '"' => found.push(Token::Text(rest.by_ref().take_while(|sign| *sign != '"').collect())),
            '[' => rest.by_ref().take_while(|sign| *sign != ']').for_each(drop),
            sign if sign.is_ascii_digit() => {
                while rest.next_if(|sign| sign.is_ascii_alphanumeric() || *sign == '.').is_some() {}
            }
            sign if sign.is_ascii_alphabetic() || sign == '_' || sign == '$' => {
                let mut name = String::from(sign);
                while let Some(sign) = rest.next_if(|sign| sign.is_ascii_alphanumeric() || matches!(sign, '_' | ':')) {
                    name.push(sign);
                }
                found.push(Token::Name(name));
            }
            sign if sign.is_whitespace() => {}
            sign => found.push(Token::Sign(sign)),
        }
    }
    found
}

/// What of an expression is not in a scrape.
pub(crate) fn unknown(expression: &str, scrape: &Scrape) -> Vec<String> {
    let tokens = tokens(expression);
    let mut wrong = Vec::new();
    let (mut metrics, mut listed) = (Vec::new(), Vec::new());
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        at += 1;
        let Token::Name(name) = token else { continue };
        let opens = tokens.get(at) == Some(&Token::Sign('('));
        if LISTS.contains(&name.as_str()) && opens {
            while let Some(token) = tokens.get(at).filter(|token| **token != Token::Sign(')')) {
                if let Token::Name(label) = token {
                    listed.push(label.clone());
                }
                at += 1;
            }
        } else if !opens && !WORDS.contains(&name.as_str()) && !lists_follow(&tokens, at) {
            metrics.push(name.clone());
            let labels = scrape.labels(name);
            if labels.is_none() && name != "up" {
                wrong.push(format!("there is no metric {name}"));
            }
            if tokens.get(at) == Some(&Token::Sign('{')) {
                at = matchers(&tokens, at + 1, name, scrape, &mut wrong);
            }
        }
    }
    assert!(!metrics.is_empty(), "no metric was found in {expression}");
    for label in listed.iter().filter(|label| !ADDED.contains(&label.as_str())) {
        if !metrics.iter().any(|metric| scrape.labels(metric).is_some_and(|labels| labels.contains_key(label.as_str())))
        {
            wrong.push(format!("nothing has the label {label}"));
        }
    }
    wrong
}

/// Whether what stood before is an aggregation: `sum by (...) (...)`.
fn lists_follow(tokens: &[Token], at: usize) -> bool {
    matches!(tokens.get(at), Some(Token::Name(next)) if next == "by" || next == "without")
}

/// Looks at `label = "value", ...}`; tells where it ends.
fn matchers(tokens: &[Token], mut at: usize, metric: &str, scrape: &Scrape, wrong: &mut Vec<String>) -> usize {
    let labels = scrape.labels(metric).unwrap_or_default();
    let mut label = String::new();
    while let Some(token) = tokens.get(at).filter(|token| **token != Token::Sign('}')) {
        match token {
            Token::Name(name) => label.clone_from(name),
            Token::Text(value) if ADDED.contains(&label.as_str()) || value.starts_with('$') => {}
            Token::Text(value) => match labels.get(label.as_str()) {
                None => wrong.push(format!("{metric} has no label {label}")),
                Some(values) => {
                    for word in value.split('|').filter(|word| !fits(word, values.iter().copied())) {
                        wrong.push(format!("{metric} has no {label} {word}"));
                    }
                }
            },
            Token::Sign(_) => {}
        }
        at += 1;
    }
    at + 1
}

/// A word, or the beginning of one before dots or `.*`, is one of the values.
fn fits<'v>(word: &str, mut values: impl Iterator<Item = &'v str>) -> bool {
    match word.split_once('.') {
        None => values.any(|value| value == word),
        Some((beginning, _)) => values.any(|value| value.starts_with(beginning)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_texts_and_signs_are_told_apart() {
        let name = |name: &str| Token::Name(name.to_owned());
        assert_eq!(
            tokens("sum(rate(a_total{x=~\"b|c\"}[5m])) > 1e3"),
            [
                name("sum"),
                Token::Sign('('),
                name("rate"),
                Token::Sign('('),
                name("a_total"),
                Token::Sign('{'),
                name("x"),
                Token::Sign('='),
                Token::Sign('~'),
                Token::Text("b|c".to_owned()),
                Token::Sign('}'),
                Token::Sign(')'),
                Token::Sign(')'),
                Token::Sign('>'),
            ]
        );
    }
}

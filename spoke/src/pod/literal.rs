//! Texts of containers as the kubelet passes them on. It replaces `$(NAME)` in commands, arguments and values of
//! variables by the variable `NAME`, which may be a password. `$$` is its spelling of one `$`. Pure.

use k8s_openapi::api::core::v1::{Container, EnvVar};

/// A text that the kubelet passes on as it was written.
#[must_use]
pub fn literal(text: &str) -> String {
    text.replace('$', "$$")
}

/// A variable whose value arrives as it was written. References to Secrets and fields are not expanded.
#[must_use]
pub fn literal_variable(variable: EnvVar) -> EnvVar {
    EnvVar {
        value: variable.value.as_deref().map(literal),
        ..variable
    }
}

/// A container whose command, arguments and variables arrive as they were written. The only way into a pod: a container
/// that is built without it hands its variables to the author of its texts.
#[must_use]
pub fn literal_container(container: Container) -> Container {
    let all = |texts: Option<Vec<String>>| texts.map(|list| list.iter().map(|text| literal(text)).collect());
    let variables = container
        .env
        .map(|list| list.into_iter().map(literal_variable).collect());
    Container {
        command: all(container.command),
        args: all(container.args),
        env: variables,
        ..container
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// k8s.io/kubernetes/third_party/forked/golang/expansion, `Expand` with `MappingFuncFor`: a reference to a variable
    /// that is not defined stays as it was written.
    fn kubelet(input: &str, variable: impl Fn(&str) -> Option<String>) -> String {
        let bytes: Vec<char> = input.chars().collect();
        let (mut out, mut checkpoint, mut cursor) = (String::new(), 0, 0);
        while cursor < bytes.len() {
            if bytes[cursor] == '$' && cursor + 1 < bytes.len() {
                out.extend(&bytes[checkpoint..cursor]);
                let rest = &bytes[cursor + 1..];
                let (read, is_variable, advance) = match rest[0] {
                    '$' => ("$".to_owned(), false, 1),
                    '(' => match rest.iter().position(|c| *c == ')') {
                        Some(end) => (rest[1..end].iter().collect(), true, end + 1),
                        None => ("$(".to_owned(), false, 1),
                    },
                    other => (format!("${other}"), false, 1),
                };
                if is_variable {
                    out.push_str(&variable(&read).unwrap_or_else(|| format!("$({read})")));
                } else {
                    out.push_str(&read);
                }
                cursor += advance;
                checkpoint = cursor + 1;
            }
            cursor += 1;
        }
        if checkpoint < bytes.len() {
            out.extend(&bytes[checkpoint..]);
        }
        out
    }

    fn arrives(text: &str) -> String {
        kubelet(&literal(text), |_| Some("the password".to_owned()))
    }

    #[test]
    fn the_emulated_kubelet_expands() {
        let one = |name: &str| (name == "A").then(|| "value".to_owned());
        assert_eq!(kubelet("x$(A)y$$(A)$(B)$", one), "xvaluey$(A)$(B)$");
    }

    #[test]
    fn no_text_reads_a_variable() {
        for text in [
            "$(RESTIC_PASSWORD)",
            "$$(X)",
            "$",
            "$$",
            "$$$(X)",
            "a$(",
            "$)",
            "100$",
            "",
        ] {
            assert_eq!(arrives(text), text);
        }
    }

    proptest! {
        #[test]
        fn every_text_arrives_as_it_was_written(text in "[$()A]{0,12}.{0,3}[$()A]{0,12}") {
            prop_assert_eq!(arrives(&text), text);
        }
    }
}

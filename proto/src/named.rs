//! Which repositories a person's text means. Hub and CLI answer alike.

/// The shortest beginning of an id that is taken for one.
const PART_OF_AN_ID: usize = 4;

/// How surely a text means a repository, the least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Means {
    /// A ResticRepository that binds it is called so.
    Bound,
    /// Its id begins so.
    Part,
    /// This name is shown for it.
    Name,
    /// It is the whole key.
    Key,
}

/// Whether a text means a repository with this key (its id, perhaps with more behind it) and this name. `places` are the
/// ResticRepositories that bind it, as `CLUSTER/NAMESPACE/NAME`; the text may leave out the cluster, or the namespace as well.
pub fn means<P: AsRef<str>>(
    text: &str,
    key: &str,
    name: &str,
    places: impl IntoIterator<Item = P>,
) -> Option<Means> {
    let is_place = |place: P| {
        let before = place.as_ref().strip_suffix(text);
        before.is_some_and(|before| before.is_empty() || before.ends_with('/'))
    };
    let is_hexadecimal = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    match () {
        () if text.is_empty() => None,
        () if text == key => Some(Means::Key),
        () if text == name => Some(Means::Name),
        () if text.len() >= PART_OF_AN_ID && is_hexadecimal && key.starts_with(text) => Some(Means::Part),
        () => places.into_iter().any(is_place).then_some(Means::Bound),
    }
}

/// Those that are meant: of all that a text may mean, those that it means most surely.
pub fn surest<T>(found: impl IntoIterator<Item = (Option<Means>, T)>) -> Vec<T> {
    let found = found.into_iter();
    let found: Vec<(Means, T)> = found.filter_map(|(means, one)| Some((means?, one))).collect();
    let best = found.iter().map(|(means, _)| *means).max();
    let best = found.into_iter().filter(|(means, _)| Some(*means) == best);
    best.map(|(_, one)| one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACES: [&str; 2] = ["b/shop/store", "c/web/nas"];

    #[test]
    fn a_repository_is_meant_by_its_key_its_name_the_beginning_of_its_id_or_a_resource() {
        let id = "abcdef0123".repeat(6);
        for (text, expected) in [
            (id.as_str(), Some(Means::Key)),
            ("main", Some(Means::Name)),
            ("abcd", Some(Means::Part)),
            ("b/shop/store", Some(Means::Bound)),
            ("shop/store", Some(Means::Bound)),
            ("store", Some(Means::Bound)),
            ("nas", Some(Means::Bound)),
            ("abc", None),
            ("mai", None),
            ("hop/store", None),
            ("a/shop/store", None),
            ("", None),
        ] {
            assert_eq!(means(text, &id, "main", PLACES), expected, "{text}");
        }
        // One that was never opened has its place in its key, and no id.
        assert_eq!(means("unknown", "unknown/b/shop/store", "store", PLACES), None);
    }

    #[test]
    fn the_surest_count_and_all_of_them() {
        let all = [
            (Some(Means::Bound), 1),
            (None, 2),
            (Some(Means::Name), 3),
            (Some(Means::Name), 4),
        ];
        assert_eq!(surest(all), [3, 4]);
        assert_eq!(surest([(None, 1)]), Vec::<i32>::new());
    }
}

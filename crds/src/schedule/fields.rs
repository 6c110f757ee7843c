//! The five fields, as sets of numbers.

/// The values that a field takes, and whether it was written as a star: of day and weekday, a star leaves the choice to
/// the other, and two that are given mean either.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Set {
    bits: u64,
    pub star: bool,
}

impl Set {
    /// Nothing but commas was written.
    pub fn is_empty(self) -> bool {
        self.bits == 0
    }

    /// At most one value.
    pub fn is_single(self) -> bool {
        self.bits.count_ones() <= 1
    }

    pub fn has(self, value: i8) -> bool {
        u32::try_from(value).is_ok_and(|value| self.bits & (1u64 << value) != 0)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fields {
    pub minute: Set,
    pub hour: Set,
    pub day: Set,
    pub month: Set,
    pub weekday: Set,
}

/// What one field may hold.
pub(super) struct Bounds {
    pub name: &'static str,
    pub least: u64,
    pub most: u64,
    /// Names of the values, beginning with the least.
    pub names: &'static [&'static str],
}

pub(super) const MONTHS: &[&str] = &[
    "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
];
pub(super) const WEEKDAYS: &[&str] = &["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

pub(super) const BOUNDS: [Bounds; 5] = [
    bounds("minute", 0, 59, &[]),
    bounds("hour", 0, 23, &[]),
    bounds("day of the month", 1, 31, &[]),
    bounds("month", 1, 12, MONTHS),
    bounds("weekday", 0, 6, WEEKDAYS),
];

const fn bounds(name: &'static str, least: u64, most: u64, names: &'static [&'static str]) -> Bounds {
    Bounds {
        name,
        least,
        most,
        names,
    }
}

/// The macros, as the fields that they stand for.
pub(super) const MACROS: [(&str, &str); 7] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

impl Fields {
    /// The fields of a schedule or macro; the error is what is wrong with it.
    pub fn parse(text: &str) -> Result<Fields, String> {
        let text = match MACROS.iter().find(|(name, _)| *name == text) {
            Some((_, fields)) => fields,
            None if text.starts_with('@') => return Err(format!("{text:?} is not known")),
            None => text,
        };
        let parts: Vec<&str> = text.split_whitespace().collect();
        let [minute, hour, day, month, weekday] = parts.as_slice() else {
            return Err(format!("it has {} fields instead of five", parts.len()));
        };
        let [minutes, hours, days, months, weekdays] = &BOUNDS;
        Ok(Fields {
            minute: minutes.set(minute)?,
            hour: hours.set(hour)?,
            day: days.set(day)?,
            month: months.set(month)?,
            weekday: weekdays.set(weekday)?,
        })
    }
}

impl Bounds {
    /// Kubernetes skips empty items of a list.
    fn set(&self, field: &str) -> Result<Set, String> {
        let mut set = Set::default();
        for item in field.split(',').filter(|item| !item.is_empty()) {
            let item = self.item(item)?;
            set.bits |= item.bits;
            set.star |= item.star;
        }
        Ok(set)
    }

    /// `*`, `5`, `1-5`, each with an optional `/step`. `5/10` means `5-59/10`.
    fn item(&self, item: &str) -> Result<Set, String> {
        let (range, step) = match item.split_once('/') {
            None => (item, None),
            Some((_, step)) if step.contains('/') => return Err(format!("{item:?} has more than one /")),
            Some((range, step)) => (range, Some(self.number(step)?)),
        };
        if step == Some(0) {
            return Err(format!("the step of {item:?} is not above zero"));
        }
        let mut ends = range.split('-');
        let first = ends.next().unwrap_or_default();
        let (second, more) = (ends.next(), ends.next());
        let star = matches!(first, "*" | "?");
        let (start, end) = match (star, second, more) {
            // Whatever follows a star is not looked at.
            (true, ..) => (self.least, self.most),
            (false, _, Some(_)) => return Err(format!("{item:?} has more than one -")),
            (false, Some(second), None) => (self.value(first)?, self.value(second)?),
            (false, None, None) if step.is_some() => (self.value(first)?, self.most),
            (false, None, None) => (self.value(first)?, self.value(first)?),
        };
        for value in [start, end] {
            if value < self.least || value > self.most {
                return Err(self.outside(value));
            }
        }
        if start > end {
            return Err(format!("the range {item:?} ends before it begins"));
        }
        let step = step.unwrap_or(1);
        let bits = (start..=end)
            .filter(|value| (value - start) % step == 0)
            .fold(0, |bits, value| bits | 1u64 << value);
        Ok(Set {
            bits,
            star: star && step == 1,
        })
    }

    fn outside(&self, value: u64) -> String {
        let sunday = if self.names == WEEKDAYS && value == 7 {
            "; write 0 for Sunday"
        } else {
            ""
        };
        format!(
            "{} {value} is out of range ({}-{}){sunday}",
            self.name, self.least, self.most
        )
    }

    fn value(&self, text: &str) -> Result<u64, String> {
        let named = self.names.iter().position(|name| name.eq_ignore_ascii_case(text));
        match named {
            Some(position) => Ok(self.least + position as u64),
            None => self.number(text),
        }
    }

    fn number(&self, text: &str) -> Result<u64, String> {
        let digits = text.strip_prefix('+').unwrap_or(text);
        let number = digits.parse::<i64>().ok().filter(|number| *number >= 0);
        number
            .filter(|_| digits.starts_with(|c: char| c.is_ascii_digit()))
            .and_then(|number| u64::try_from(number).ok())
            .ok_or_else(|| format!("{text:?} is not a number of the field {}", self.name))
    }
}

//! The fields of a retention rule in restic's order, so that its readers need not name them one by one.

use crate::v1::RetentionRule;

impl RetentionRule {
    /// keepLast, hourly, daily, weekly, monthly, yearly; 0 for none.
    #[must_use]
    pub fn counts(&self) -> [u32; 6] {
        [
            self.keep_last,
            self.keep_hourly,
            self.keep_daily,
            self.keep_weekly,
            self.keep_monthly,
            self.keep_yearly,
        ]
    }

    /// keepWithin and its hourly, daily, weekly, monthly and yearly kind, such as "1y5m7d2h"; empty for none.
    #[must_use]
    pub fn spans(&self) -> [&str; 6] {
        [
            &self.keep_within,
            &self.keep_within_hourly,
            &self.keep_within_daily,
            &self.keep_within_weekly,
            &self.keep_within_monthly,
            &self.keep_within_yearly,
        ]
    }
}

"""Pipeline schedules: one file each, with its source and closed form."""

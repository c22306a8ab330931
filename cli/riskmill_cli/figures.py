"""Numbers as people read them: three significant digits and a suffix. The report's script does the same in the page."""

_SCALES = ((1e9, "bn"), (1e6, "m"), (1e3, "k"))

#: shown where a figure is undefined
UNDEFINED = "–"


def compact(value: float | None) -> str:
    """An amount with three significant digits: 1.23bn, 45.6m, 789k, 12; an en dash for None."""
    if value is None:
        return UNDEFINED
    # 999,600 is "1.00m", not "1,000k": a scale is used from the value that would round to four digits one below
    scale, suffix = next(((s, name) for s, name in _SCALES if abs(value) >= s * 0.9995), (1.0, ""))
    scaled = value / scale
    if not suffix:
        return f"{scaled:,.0f}"
    digits = 2 if abs(scaled) < 9.995 else 1 if abs(scaled) < 99.95 else 0
    return f"{scaled:,.{digits}f}{suffix}"


def number(value: float | None, digits: int = 3) -> str:
    """A figure without a unit with so many significant digits, whole where it has more; an en dash for None."""
    if value is None:
        return UNDEFINED
    if abs(value) < 1e-9:  # what rounding leaves of a nought
        return "0"
    return f"{value:,.0f}" if abs(value) >= 10**digits else f"{value:.{digits}g}"


def law_name(name: str) -> str:
    """The name of a law or of its parameter, as people write it: negative_binomial is negative binomial."""
    return name.replace("_", " ").replace("poisson", "Poisson").replace("pareto", "Pareto")


def interval(low: float | None, high: float | None) -> str:
    """Limits of a figure: 1.62–1.95bn, but 940m–1.07bn; nothing unless both are there."""
    if low is None or high is None:
        return ""
    first, last = compact(low), compact(high)
    unit = first.lstrip("-0123456789.,")
    return f"{first.removesuffix(unit) if unit and last.endswith(unit) else first}–{last}"


def percent(value: float | None, digits: int = 1) -> str:
    """A fraction as a percentage: 0.123 is 12.3%; an en dash for None."""
    return UNDEFINED if value is None else f"{value * 100:.{digits}f}%"


def duration(seconds: float | None) -> str:
    """Seconds as people say them: 0.8 s, 42 s, 3 min 05 s, 1 h 02 min; an en dash for None."""
    if seconds is None:
        return UNDEFINED
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"

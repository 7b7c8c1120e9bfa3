"""What the sums of briefbox/store/cost.py mean, in sentences: for the command line and the desk alike."""

from decimal import ROUND_CEILING, ROUND_HALF_EVEN, Decimal

from briefbox.store.cost import HOURS_A_DAY, PAID_ENGINE, Costs

SECONDS_A_DAY = Decimal(86_400)


def amount(value: Decimal | None, places: int | None = None) -> str:
    """Money rounded for people: two places, or two significant figures below 0.1; "" where there is none.

    With `places` it has so many, as the figures of a column should.
    """
    if value is None:
        return ""
    if places is not None:
        return f"{value.quantize(Decimal(1).scaleb(-places), ROUND_HALF_EVEN):,f}"
    if value == 0 or abs(value) >= Decimal("0.1"):
        return f"{value.quantize(Decimal('0.01'), ROUND_HALF_EVEN):,}"
    return f"{value.quantize(Decimal(1).scaleb(value.adjusted() - 1), ROUND_HALF_EVEN):f}"


def places(total: Decimal | None, figures: int) -> int:
    """Places of a column of money: two, or as many as show `figures` figures of a total below 1."""
    return 2 if not total or total >= 1 else figures - 1 - total.adjusted()


def missing(costs: Costs) -> str:
    """Which settings to set for what is left out; "" when all prices that matter are there."""
    prices, parts = costs.prices, []
    if costs.engines - {PAID_ENGINE} or not costs.engines:
        if not prices.device_hour:
            parts.append("the machine (BRIEFBOX_PRICE_DEVICE_HOUR)")
        if not (prices.watts and prices.kwh):
            parts.append("its power (BRIEFBOX_DEVICE_WATTS and BRIEFBOX_PRICE_KWH)")
    if PAID_ENGINE in costs.engines and not (prices.million_in or prices.million_out):
        parts.append(
            "tokens of the engine `openai` (BRIEFBOX_PRICE_MILLION_IN and BRIEFBOX_PRICE_MILLION_OUT)"
        )
    if not (prices.hosted_in or prices.hosted_out):
        parts.append(
            "the comparison with a hosted service (BRIEFBOX_HOSTED_MILLION_IN and BRIEFBOX_HOSTED_MILLION_OUT)"
        )
    return f"Left out, because no price is set: {'; '.join(parts)}." if parts else ""


def comparison(costs: Costs) -> str:
    """Which is cheaper, and from how many emails a day a machine that runs all day pays; "" without prices."""
    total = costs.total
    if not total.emails or not total.hosted:
        return ""
    parts = []
    if total.money is not None:
        parts.append(_for_these(costs, total.money, total.hosted))
    if costs.prices.machine_hour:
        parts.append(_all_day(costs, total.hosted))
    return " ".join(parts)


def emails_a_day(costs: Costs) -> Decimal:
    """The present volume."""
    return Decimal(costs.total.emails) / max(costs.days, 1)


def break_even(costs: Costs) -> int | None:
    """Emails a day from which a machine that runs all day costs less than a hosted service; None without prices."""
    if not (costs.total.emails and costs.total.hosted and costs.prices.machine_hour):
        return None
    hosted_per_email = costs.total.hosted / costs.total.emails
    a_day = costs.prices.machine_hour * HOURS_A_DAY
    return int((a_day / hosted_per_email).to_integral_value(ROUND_CEILING))


def capacity(costs: Costs) -> int | None:
    """Emails that the machine here can brief in a day at the measured speed; None where it wrote none."""
    if not (costs.local_emails and costs.local_seconds):
        return None
    return int(SECONDS_A_DAY * costs.local_emails / costs.local_seconds)


def _for_these(costs: Costs, money: Decimal, hosted: Decimal) -> str:
    currency = costs.prices.currency
    verdict = (
        "both cost the same"
        if money == hosted
        else f"{'briefbox' if money < hosted else 'a hosted service'} is cheaper"
    )
    return (
        f"These briefs cost {amount(money)} {currency} by the time and tokens they took; "
        f"a hosted service would ask {amount(hosted)} {currency} for the same tokens: {verdict}."
    )


def _all_day(costs: Costs, hosted: Decimal) -> str:
    currency, volume, at_most = costs.prices.currency, emails_a_day(costs), capacity(costs)
    even = break_even(costs)
    assert even is not None
    a_day = amount(costs.prices.machine_hour * HOURS_A_DAY)
    sentence = f"A machine that runs all day for this alone costs {a_day} {currency} a day and pays from {even:,} emails a day"
    if at_most is not None and at_most < even:
        return f"{sentence}, more than the {at_most:,} that it can brief in a day at this speed: at these prices a hosted service is cheaper."
    verdict = "the machine" if volume >= even else "a hosted service"
    return f"{sentence}; at the present {_number(volume)} a day {verdict} is cheaper."


def _number(value: Decimal) -> str:
    """A daily volume for people: whole from 10 on."""
    return f"{value.quantize(Decimal(1) if value >= 10 else Decimal('0.1')).normalize():,f}"

"""The categories an admin starts with, for what runs without a database.

The migrations make the same list and stay as they are; a test compares them.
"""

from briefbox.schemas import Category

DEFAULT_CATEGORIES: tuple[Category, ...] = (
    Category(name="billing", description="invoices, charges, payments, prices"),
    Category(name="shipping", description="delivery, tracking, lost or late parcels"),
    Category(name="returns", description="refunds, exchanges, damaged or wrong goods"),
    Category(name="product question", description="how something works, what fits, what is available"),
    Category(name="technical problem", description="errors, outages, something that does not work"),
    Category(name="account access", description="sign-in, passwords, permissions, closing an account"),
    Category(name="feature request", description="a wish for something new"),
    Category(name="complaint", description="dissatisfaction with service or people"),
    Category(
        name="cancellation", description="ending a contract or subscription, calling off an order or booking"
    ),
    Category(name="other", description="anything else"),
)

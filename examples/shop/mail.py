"""Mail, over SMTP."""

from __future__ import annotations

import asyncio
import smtplib
from email.message import EmailMessage

from sqlalchemy.ext.asyncio import AsyncSession

from .config import ShopSettings
from .models import EmailLog


def deliver(settings: ShopSettings, recipient: str, subject: str, text: str) -> None:
    """Give a mail to the mail server. Blocks for ten seconds at most where that does not answer."""
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = settings.sender, recipient, subject
    message.set_content(text)
    with smtplib.SMTP(settings.smtp_host, settings.smtp_port, timeout=10) as server:
        server.send_message(message)


class RecipientsRefusedError(Exception):
    """The mail server has refused recipients."""


class Mailer:
    """Sends the mails of one run, and adds each to the e-mail log in the session of the run."""

    def __init__(self, session: AsyncSession, settings: ShopSettings) -> None:
        self.session = session
        self.settings = settings
        self.refused: list[str] = []

    async def send(self, recipient: str, subject: str, text: str) -> bool:
        """Send a mail, and return whether it was sent: one refused recipient must not cost the others their mails."""
        try:
            await asyncio.to_thread(deliver, self.settings, recipient, subject, text)
        except smtplib.SMTPRecipientsRefused:
            self.refused.append(recipient)
            return False
        self.session.add(EmailLog(recipient=recipient, subject=subject))
        return True

    def raise_if_refused(self) -> None:
        """Let the run fail if recipients were refused, once the others have their mails."""
        if self.refused:
            raise RecipientsRefusedError(f"the mail server refuses {', '.join(self.refused)}")

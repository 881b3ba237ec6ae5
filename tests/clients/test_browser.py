"""The browser itself: what the other tests rely on."""

from clients.browser import console_errors, open_page, requests


def test_errors_and_requests_are_seen(chromium, tmp_path):
    file = tmp_path / "page.html"
    viewport = "<meta name='viewport' content='width=device-width'>"
    file.write_text(viewport + "<img src='http://127.0.0.1:9/missing.png'><script>console.error('broken')</script>")
    open_page(chromium, file, width=390, dark=True)
    assert any("broken" in message for message in console_errors(chromium))
    assert requests(chromium) == [file.as_uri(), "http://127.0.0.1:9/missing.png"]
    assert chromium.execute_script("return matchMedia('(prefers-color-scheme: dark)').matches")
    assert chromium.execute_script("return innerWidth") == 390

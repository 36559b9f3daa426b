"""Selenium by `debuggerAddress`: ChromeDriver asks by HTTP, then speaks with the browser's socket."""

from shutil import which

from job import FORM, HOST, MARK, NAME, PORT, SENT, report
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By

options = ChromeOptions()
options.debugger_address = f"{HOST}:{PORT}"
driver = Chrome(options=options, service=Service(which("chromedriver")))
driver.get(FORM)
marks = driver.execute_script(f"return {MARK}")
driver.find_element(By.ID, "name").send_keys(NAME)
driver.find_element(By.ID, "send").click()
report(
    title=driver.title,
    sent=driver.execute_script(f"return {SENT}"),
    marks=marks,
    picture=driver.get_screenshot_as_png(),
)
driver.quit()

"""browser-use: its agent, with a model of ours that always decides the same."""

import asyncio
import json
import re

from browser_use import Agent, BrowserProfile, BrowserSession
from browser_use.llm.views import ChatInvokeCompletion
from job import FILES, FOLDER, FORM, HTTP, MARK, NAME, SENT, downloaded, report

# One for each step; an element is named by what its line in the agent's view holds.
STEPS = [
    ("navigate", {"url": FORM}),
    ("evaluate", {"code": f"JSON.stringify({{marks: {MARK}}})"}),
    ("input", {"index": "id=name ", "text": NAME}),
    ("click", {"index": "id=send "}),
    ("evaluate", {"code": f"JSON.stringify({{title: document.title, sent: {SENT}}})"}),
    ("navigate", {"url": FILES}),
    ("click", {"index": "id=download "}),
    ("done", {"text": "done", "success": True}),
]


class Model:
    """Follows STEPS."""

    model = name = "steps"
    provider = "none"
    _verified_api_keys = True

    def __init__(self):
        self.steps = iter(STEPS)

    async def ainvoke(self, messages, output_format=None, **_):
        view = "\n".join(message.text for message in messages)
        action, parameters = next(self.steps)
        output = output_format(thinking="", evaluation_previous_goal="", memory="", next_goal="", action=[{action: located(parameters, view)}])
        return ChatInvokeCompletion(completion=output, usage=None)


def located(parameters, view):
    """Puts the number of the element in the place of what describes it."""
    if "index" not in parameters:
        return parameters
    pattern = rf"\[(\d+)\]<\w+ [^\n]*{re.escape(parameters['index'])}"
    return {**parameters, "index": int(re.findall(pattern, view)[-1])}


async def main():
    browser = BrowserSession(browser_profile=BrowserProfile(cdp_url=HTTP, downloads_path=FOLDER))
    agent = Agent(task="send the form, fetch the file", llm=Model(), browser_session=browser, use_judge=False)
    history = await agent.run(max_steps=len(STEPS))
    errors = [error for error in history.errors() if error]
    if errors:
        raise RuntimeError(errors)
    did = {}
    for content in history.extracted_content():
        if content.startswith("{"):
            did |= json.loads(content)
    picture = [picture for picture in history.screenshots() if picture][-1]
    report(picture=picture, file=downloaded(FOLDER / "report.txt"), **did)


asyncio.run(main())

"""Inference: text in, brief out. Knows no database, no queue and no web.

How an email becomes a brief, in the order in which to read the files:

 1. engine               the protocol: requests in, briefs out; which engine BRIEFBOX_ENGINE names; the fake one
 2. prompt               request -> token ids: instructions and categories (shared by all), then one conversation
    language, text       the language of an email; text as a person would see it
 3. transformers_engine  one batch from prompts to briefs: the other files of this part in their order
    session              the batch's rows, which grow together behind the shared prefix
    attention, cache     how packed rows share a prefix without padding; where their keys and values lie
 4. labels, calibrate    priority and category: every allowed label is scored; a bare model's habit is taken out
    doubt                when such a label needs a human
 5. decode               headline and summary, token by token, all rows at once
    constrain            the second try of a line with facts that the email does not hold
 6. brief                raw text and labels -> the Brief: plain, grounded, never empty
    grounding, facts     what the email bears out; numbers, dates and the like in one form
    instructions         whether the email holds text addressed to an assistant

The engine on a server:  openai_engine, then openai_writer (one email), openai_text (question and answer),
                         openai_labels (confidence), openai_chat (what the server takes), openai_client (HTTP)
Adapters:                registry (folders, checks), adapter_checks (what one may hold), adapters (several in one model)
Base models:             base (setting -> folder), packaged, hub and fetch (one commit of a hub), catalog, fit, inspect_model
Below all of them:       device (where, in which number format), linear (weights laid out for the CPU), folders, sums, quiet
"""

// Tells people with a screen reader what changed without their doing, and says it on the screen to everybody.
import { createContext, type ComponentChildren } from "preact";
import { useCallback, useContext, useEffect, useState } from "preact/hooks";

type Announce = (text: string) => void;

/** How long a message stays on the screen. */
const SHOWN_MS = 6000;
const Context = createContext<Announce>(() => {});

export function Announcer({ children }: { children: ComponentChildren }) {
  const [message, setMessage] = useState({ text: "", turn: 0 });
  const announce = useCallback<Announce>((text) => setMessage(({ turn }) => ({ text, turn: turn + 1 })), []);
  useEffect(() => {
    if (!message.text) return undefined;
    const timer = setTimeout(() => setMessage(({ turn }) => ({ text: "", turn })), SHOWN_MS);
    return () => clearTimeout(timer);
  }, [message]);
  return (
    <Context.Provider value={announce}>
      {children}
      <div class="toasts" role="status" aria-live="polite">
        {message.text && (
          <p class="toast" key={message.turn}>
            {message.text}
          </p>
        )}
      </div>
    </Context.Provider>
  );
}

export function useAnnounce(): Announce {
  return useContext(Context);
}
